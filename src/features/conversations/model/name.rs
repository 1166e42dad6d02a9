//! The name of a user in a request.

use crate::core::identity::{email_key, username_key};
use crate::core::text::folded;
use chrono::{DateTime, Utc};

/// What a user is looked up by: the name without regard to case, and the key that all spellings of
/// it share. Made before a transaction begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// An email.
    Email(Keys),
    /// A username.
    Username(Keys),
}

/// What a name is compared by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Keys {
    folded: String,
    canonical: String,
}

impl Name {
    /// An email in any spelling.
    pub fn email(text: &str) -> Self {
        Self::Email(Keys { folded: folded(text), canonical: email_key(text) })
    }

    /// A username in any spelling.
    pub fn username(text: &str) -> Self {
        Self::Username(Keys { folded: folded(text), canonical: username_key(text) })
    }

    /// Without regard to case.
    pub fn folded(&self) -> &str {
        let (Self::Email(keys) | Self::Username(keys)) = self;
        &keys.folded
    }

    /// The same for every spelling.
    pub fn canonical(&self) -> &str {
        let (Self::Email(keys) | Self::Username(keys)) = self;
        &keys.canonical
    }
}

/// The user who has a name.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// Their id.
    pub id: i64,
    /// When they took the name.
    pub since: DateTime<Utc>,
}
