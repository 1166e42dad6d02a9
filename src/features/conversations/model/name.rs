//! A username or email in a request.

use crate::core::identity::{email_key, username_key};
use crate::core::text::folded;
use chrono::{DateTime, Utc};

/// Maximum length of a username, in characters. Same limit as for users.
pub(super) const MAX_USERNAME: usize = 100;

/// A name with the lookup keys of a user. Computed before a transaction begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LookupName {
    /// An email address.
    Email(LookupKeys),
    /// A username.
    Username(LookupKeys),
}

/// The two keys by which a name is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LookupKeys {
    folded: String,
    canonical: String,
}

impl LookupName {
    /// From an email address in any spelling.
    pub fn email(text: &str) -> Self {
        Self::Email(LookupKeys { folded: folded(text), canonical: email_key(text) })
    }

    /// From a username in any spelling.
    pub fn username(text: &str) -> Self {
        Self::Username(LookupKeys { folded: folded(text), canonical: username_key(text) })
    }

    /// The case-folded name.
    pub fn folded(&self) -> &str {
        let (Self::Email(keys) | Self::Username(keys)) = self;
        &keys.folded
    }

    /// The canonical key, equal for all spellings of the name.
    pub fn canonical(&self) -> &str {
        let (Self::Email(keys) | Self::Username(keys)) = self;
        &keys.canonical
    }
}

/// The user who owns a name.
#[derive(Clone, Copy, Debug)]
pub struct NameOwner {
    /// User id.
    pub id: i64,
    /// Time at which the user took the name.
    pub since: DateTime<Utc>,
}
