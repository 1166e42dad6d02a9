//! What a user is, in the database and on the wire.

use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::http::{Checked, Fields, PathValue, Rules, without_nul};
use crate::security::password;
use email_address::{EmailAddress, Options};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most characters of a username.
pub const MAX_USERNAME: usize = 100;
const MAX_FULL_NAME: usize = 255;
/// RFC 5321, section 4.5.3.1.3, less the angle brackets.
pub const MAX_EMAIL: usize = 254;
/// Most characters of a password that is compared with a stored one. The rules for new passwords may
/// have been others when it was chosen.
pub const MAX_CURRENT_PASSWORD: usize = 1024;

/// The name of a user in a path; one that is longer than any username is refused.
#[derive(Debug)]
pub struct Username(pub String);

impl PathValue for Username {
    fn read(name: &str, text: &str, fields: &mut Fields) -> Option<Self> {
        let path = vec![Loc::Name(name.to_owned().into())];
        if !fields.is_within(path, text, 1..=MAX_USERNAME) {
            return None;
        }
        without_nul(name, text.to_owned(), fields).map(Self)
    }
}

/// A user as everybody may see them.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct PublicUser {
    /// Never used again.
    #[schema(example = 1)]
    pub id: i64,
    /// Unique without regard to case.
    #[schema(example = "alice")]
    pub username: String,
    /// What people call them.
    #[schema(example = "Alice Liddell")]
    pub full_name: Option<String>,
    /// When they registered.
    pub created_at: Timestamp,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema, sqlx::FromRow)]
pub struct User {
    /// Never used again.
    #[schema(example = 1)]
    pub id: i64,
    /// Unique without regard to case.
    #[schema(example = "alice@example.com")]
    pub email: String,
    /// Unique without regard to case.
    #[schema(example = "alice")]
    pub username: String,
    /// What people call them.
    #[schema(example = "Alice Liddell")]
    pub full_name: Option<String>,
    /// Whether they may log in.
    pub is_active: bool,
    /// Whether they are more than others.
    pub is_superuser: bool,
    /// When they registered.
    pub created_at: Timestamp,
    /// When they were last changed.
    pub updated_at: Timestamp,
}

/// Somebody who registers.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "alice@example.com", "username": "alice", "password": "correct horse battery",
    "full_name": "Alice Liddell"}))]
pub struct CreateUser {
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// Without `@` and control characters, and without blanks around it.
    #[schema(min_length = 1, max_length = 100)]
    username: String,
    /// Any characters, but none of the most common passwords.
    #[schema(format = "password", min_length = 8, max_length = 128)]
    password: String,
    #[schema(max_length = 255)]
    full_name: Option<String>,
}

/// A registration that keeps the rules.
pub struct NewUser {
    pub(super) email: String,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) full_name: Option<String>,
}

/// Changes to a user; what is absent or null stays as it is, and other fields are ignored, so that
/// a user can be sent back as it was got.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"full_name": "Alice Pleasance Liddell"}))]
pub struct UpdateUser {
    /// Changed by admin keys only.
    #[schema(format = "email", max_length = 254)]
    email: Option<String>,
    #[schema(min_length = 1, max_length = 100)]
    username: Option<String>,
    #[schema(max_length = 255)]
    full_name: Option<String>,
    /// Changed by admin keys only.
    #[schema(format = "password", min_length = 8, max_length = 128)]
    password: Option<String>,
    /// Changed by admin keys only.
    is_active: Option<bool>,
}

/// Changes that keep the rules. In each field `None` is no change.
pub struct UserChanges {
    pub(super) email: Option<String>,
    pub(super) username: Option<String>,
    pub(super) full_name: Option<String>,
    pub(super) password: Option<String>,
    pub(super) is_active: Option<bool>,
}

impl Checked for CreateUser {
    type Valid = NewUser;
    const MAX_BYTES: usize = 4096;
    const IS_SLOW: bool = true;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> NewUser {
        NewUser {
            email: email(fields, self.email),
            username: username(fields, self.username),
            password: password(fields, rules, "password", self.password),
            full_name: self.full_name.map(|text| full_name(fields, text)),
        }
    }
}

impl Checked for UpdateUser {
    type Valid = UserChanges;
    const IS_SLOW: bool = true;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> UserChanges {
        UserChanges {
            email: self.email.map(|text| email(fields, text)),
            username: self.username.map(|text| username(fields, text)),
            full_name: self.full_name.map(|text| full_name(fields, text)),
            password: self.password.map(|text| password(fields, rules, "password", text)),
            is_active: self.is_active,
        }
    }
}

/// Whether `text` is an email as we take them.
pub fn is_email(text: &str) -> bool {
    let options =
        Options::default().with_required_tld().without_display_text().without_domain_literal();
    text.len() <= MAX_EMAIL && EmailAddress::parse_with_options(text, options).is_ok()
}

pub(super) fn email(fields: &mut Fields, text: String) -> String {
    if !is_email(&text) {
        let msg = "value is not a valid email address";
        fields.add("email", "value_error", msg, text.as_str());
    }
    text
}

pub(super) fn username(fields: &mut Fields, text: String) -> String {
    let path = vec![Loc::Name("username".into())];
    if !fields.is_within(path, &text, 1..=MAX_USERNAME) {
        return text;
    }
    let problem = if text.contains('@') {
        Some("must not contain '@'")
    } else if text.contains(char::is_control) {
        Some("must not contain control characters")
    } else if text.trim() != text {
        Some("must not begin or end with a blank")
    } else {
        None
    };
    if let Some(problem) = problem {
        let msg = format!("Value error, a username {problem}");
        fields.add("username", "value_error", msg, text.as_str());
    }
    text
}

pub(super) fn full_name(fields: &mut Fields, text: String) -> String {
    fields.text("full_name", text, 0..=MAX_FULL_NAME)
}

/// A new password in `field`.
pub(super) fn password(
    fields: &mut Fields,
    rules: &Rules<'_>,
    field: &'static str,
    text: String,
) -> String {
    let range = rules.config.password_min_length..=password::MAX_CHARACTERS;
    // One problem at a time: a password that is too short is mostly common, too.
    if range.contains(&text.chars().count())
        && let Some(weakness) = password::weakness(&text, rules.config.password_hasher)
    {
        fields.add(field, "value_error", format!("Value error, {weakness}"), "");
    }
    fields.text(field, text, range)
}
