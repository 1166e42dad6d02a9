//! What logging in takes and gives, and what a session is on the wire.

use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::core::identity::{MAX_EMAIL, MAX_USERNAME, email_key, username_key};
use crate::core::text::folded;
use crate::features::users::model::{MAX_CURRENT_PASSWORD, User};
use crate::http::{Checked, Fields, FromQuery, QueryPairs, Rules};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// Most characters of a `User-Agent` that are kept.
const MAX_USER_AGENT: usize = 255;

/// Somebody who logs in, with either of their names.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"username": "alice", "password": "correct horse battery"}))]
pub struct LogIn {
    /// Either this or `username`, in any spelling.
    #[schema(format = "email", max_length = 254)]
    email: Option<String>,
    /// Either this or `email`, in any spelling.
    #[schema(max_length = 100)]
    username: Option<String>,
    #[schema(format = "password", max_length = 1024)]
    password: String,
}

/// What somebody who logs in shows.
pub struct Login {
    pub(super) name: LoginName,
    pub(super) password: String,
}

/// The name that was sent: folded, and by its key.
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

    /// The same for all spellings of a name: usernames have no `@`, so no email is one.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Email { key, .. } | Self::Username { key, .. } => key,
        }
    }
}

impl Checked for LogIn {
    type Valid = Login;
    const MAX_BYTES: usize = 4096;

    /// The rules of passwords are not asked: they may have been others when this one was chosen.
    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> Login {
        let mut short = |field: &'static str, text: String, max: usize| {
            let fits = fields.is_within(vec![Loc::Name(field.into())], &text, 0..=max);
            if fits { text } else { String::new() }
        };
        let password = short("password", self.password, MAX_CURRENT_PASSWORD);
        let email = self.email.map(|text| short("email", text, MAX_EMAIL));
        let username = self.username.map(|text| short("username", text, MAX_USERNAME));
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
    /// The token, which is never shown again: `Authorization: Bearer octs_…`.
    #[schema(example = "octs_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg042qFT")]
    pub access_token: String,
    /// Always `bearer`.
    #[schema(example = "bearer")]
    pub token_type: &'static str,
    /// When it ends, however much it is used; unused, it may end before.
    pub expires_at: Timestamp,
    /// Who logged in.
    pub user: User,
}

/// A session of one's own.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnSession {
    /// Never used again.
    #[schema(example = 1)]
    pub id: i64,
    /// When they logged in.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Timestamp,
    /// Where it was used from then.
    #[schema(example = "192.0.2.1")]
    pub last_used_ip: Option<String>,
    /// What they logged in with, as it calls itself; shortened.
    #[schema(example = "curl/8.5.0")]
    pub user_agent: Option<String>,
    /// When it ends, however much it is used.
    pub expires_at: Timestamp,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// Which sessions to end.
#[derive(Clone, Copy, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EndedSessions {
    /// Whether the one that asks goes on.
    #[param(default = false, required = false)]
    pub keep_current: bool,
}

impl FromQuery for EndedSessions {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { keep_current: query.flag("keep_current").unwrap_or(false) }
    }
}

/// What is kept of a `User-Agent`.
pub fn user_agent(field: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(field).ok()?.trim();
    (!text.is_empty()).then(|| text.chars().take(MAX_USER_AGENT).collect())
}
