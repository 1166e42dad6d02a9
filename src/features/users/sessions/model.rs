//! Session models: request and response bodies, and their validation.

use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::core::identity::{MAX_EMAIL, MAX_USERNAME, email_key, username_key};
use crate::core::text::folded;
use crate::features::users::model::{MAX_CURRENT_PASSWORD, User};
use crate::http::{Checked, Fields, FromQuery, QueryPairs, Rules, SHORT_TEXTS_BYTES};
use crate::security::secret::Secret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// Maximum stored length of a `User-Agent`, in characters.
const MAX_USER_AGENT: usize = 255;

/// Request to sign in with an email or a username.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"username": "alice", "password": "correct horse battery"}))]
pub struct LogIn {
    /// Send either `email` or `username`. Compared ignoring case, width, Unicode composition, the
    /// form of an IDN domain, and surrounding blanks.
    #[schema(format = "email", max_length = 254)]
    email: Option<String>,
    /// Send either `email` or `username`. Compared ignoring case, width, Unicode composition and
    /// surrounding blanks.
    #[schema(max_length = 100)]
    username: Option<String>,
    #[schema(format = "password", max_length = 1024)]
    password: String,
}

/// A validated [`LogIn`].
pub struct Login {
    pub(super) name: LoginName,
    pub(super) password: String,
}

/// The name to sign in with: case-folded, and its canonical key.
pub enum LoginName {
    /// An email.
    Email { folded: String, key: String },
    /// A username.
    Username { folded: String, key: String },
}

impl LoginName {
    fn email(text: &str) -> Self {
        Self::Email { folded: folded(text), key: email_key(text) }
    }

    fn username(text: &str) -> Self {
        Self::Username { folded: folded(text), key: username_key(text) }
    }

    /// The canonical key, equal for all spellings of a name. Usernames have no `@`, so an email and
    /// a username never share a key.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Email { key, .. } | Self::Username { key, .. } => key,
        }
    }
}

impl Checked for LogIn {
    type Valid = Login;
    const MAX_BYTES: usize = SHORT_TEXTS_BYTES;

    /// Does not apply the rules for new passwords: earlier rules may have been different.
    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> Login {
        let mut short = |field: &'static str, text: &str, max: usize| {
            let fits = fields.is_within(vec![Loc::Name(field.into())], text, 0..=max);
            if fits { text.to_owned() } else { String::new() }
        };
        let password = short("password", &self.password, MAX_CURRENT_PASSWORD);
        // Stored names have no surrounding blanks, which are easily typed or pasted by mistake.
        let email = self.email.map(|text| short("email", text.trim(), MAX_EMAIL));
        let username = self.username.map(|text| short("username", text.trim(), MAX_USERNAME));
        let name = match (email, username) {
            (Some(email), None) => LoginName::email(&email),
            (None, Some(username)) => LoginName::username(&username),
            _ => {
                let msg = "Value error, send exactly one of 'email' and 'username'";
                fields.add_at(vec![], "value_error", msg, Value::Null);
                LoginName::username("")
            }
        };
        Login { name, password }
    }
}

/// A new session.
#[derive(Serialize, ToSchema)]
pub struct BegunSession {
    /// Session token, never shown again. Send it as `Authorization: Bearer octs_…`.
    #[schema(
        value_type = String,
        example = "octs_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg042qFT"
    )]
    pub access_token: Secret,
    /// Always `bearer`.
    #[schema(example = "bearer")]
    pub token_type: &'static str,
    /// Expiry of the session. An unused session may end earlier.
    pub expires_at: Timestamp,
    /// The signed-in user.
    pub user: User,
}

/// A session of the current user.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnSession {
    /// Unique id; never reused.
    #[schema(example = 1)]
    pub id: i64,
    /// Time of sign-in.
    pub created_at: Timestamp,
    /// Time of the last use.
    pub last_used_at: Timestamp,
    /// Client address of the last use.
    #[schema(example = "192.0.2.1")]
    pub last_used_ip: Option<String>,
    /// `User-Agent` at sign-in, truncated to 255 characters.
    #[schema(example = "curl/8.5.0")]
    pub user_agent: Option<String>,
    /// Expiry of the session. An unused session may end earlier.
    pub expires_at: Timestamp,
    /// Whether this session authenticates the request.
    pub current: bool,
}

/// Which sessions to revoke.
#[derive(Clone, Copy, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EndedSessions {
    /// Keep the session that authenticates the request.
    #[param(default = false, required = false)]
    pub keep_current: bool,
}

impl FromQuery for EndedSessions {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { keep_current: query.flag("keep_current").unwrap_or(false) }
    }
}

/// Returns the part of a `User-Agent` to store; `None` if it is empty or not UTF-8.
pub fn user_agent(field: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(field).ok()?.trim();
    (!text.is_empty()).then(|| text.chars().take(MAX_USER_AGENT).collect())
}
