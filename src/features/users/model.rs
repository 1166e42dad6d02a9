//! What a user is, in the database and on the wire.

use crate::core::clock::Timestamp;
use crate::core::error::{Loc, Result};
use crate::core::identity::{self, MAX_USERNAME};
use crate::http::{Checked, Fields, PathValue, Rules, without_nul};
use crate::security::password;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const MAX_FULL_NAME: usize = 255;
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
    /// Unique in every spelling: case, width, composition and the form of an IDN domain do not count.
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
    /// Unique in every spelling: case, width, composition and the form of an IDN domain do not count.
    #[schema(example = "alice@example.com")]
    pub email: String,
    /// Unique in every spelling: case, width, composition and the form of an IDN domain do not count.
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
    /// Stored trimmed, its domain in ASCII.
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// Letters, digits and ASCII punctuation without `@` and spaces (RFC 8265, UsernameCasePreserved), of one script
    /// or of Latin and one East Asian script. Stored with letters of normal width, composed (NFC).
    #[schema(min_length = 1, max_length = 100)]
    username: String,
    /// Not easy to guess (zxcvbn score 2 or more): no common password, repeat, sequence or name of
    /// the user. Without control and invisible characters; hashed as OpaqueString (RFC 8265).
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

/// Changes that were sent. In each field `None` is no change.
pub struct SentChanges {
    pub(super) email: Option<SentName>,
    pub(super) username: Option<SentName>,
    pub(super) full_name: Option<String>,
    pub(super) password: Option<String>,
    pub(super) is_active: Option<bool>,
}

/// A name that was sent. One that a user has had since before today's rules may be sent back.
pub struct SentName {
    field: &'static str,
    sent: String,
    /// The form to store, or what is wrong with it.
    checked: Result<String, String>,
}

/// Changes to one user that keep the rules. In each field `None` is no change.
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
    type Valid = SentChanges;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> SentChanges {
        SentChanges {
            email: self.email.map(|text| sent_email(fields, text)),
            username: self.username.map(|text| sent_username(fields, text)),
            full_name: self.full_name.map(|text| full_name(fields, text)),
            password: self.password.map(|text| password(fields, rules, "password", text)),
            is_active: self.is_active,
        }
    }
}

impl SentName {
    /// The form to store, unless the user's name is this one already. Fails with 422 when it is
    /// another and breaks a rule.
    fn settled(&self, current: &str) -> Result<Option<String>> {
        if self.sent == current {
            return Ok(None);
        }
        match &self.checked {
            Ok(stored) => Ok(Some(stored.clone()).filter(|stored| stored != current)),
            Err(msg) => {
                let input = self.sent.as_str();
                Err(Fields::refusal("body", self.field, "value_error", msg.as_str(), input))
            }
        }
    }
}

impl SentChanges {
    /// What changes of a user with this email and username.
    pub(super) fn settled(&self, email: &str, username: &str) -> Result<UserChanges> {
        let settled = |sent: &Option<SentName>, current| {
            sent.as_ref().map_or(Ok(None), |sent| sent.settled(current))
        };
        Ok(UserChanges {
            email: settled(&self.email, email)?,
            username: settled(&self.username, username)?,
            full_name: self.full_name.clone(),
            password: self.password.clone(),
            is_active: self.is_active,
        })
    }
}

impl UserChanges {
    /// The names that the user gets.
    pub(super) fn names(&self) -> [Option<&str>; 3] {
        [self.email.as_deref(), self.username.as_deref(), self.full_name.as_deref()]
    }
}

const NOT_AN_EMAIL: &str = "value is not a valid email address";

fn email(fields: &mut Fields, text: String) -> String {
    identity::email(&text).unwrap_or_else(|| {
        fields.add("email", "value_error", NOT_AN_EMAIL, text.as_str());
        text
    })
}

/// An email for a user who may have it already: adds a problem where no user can.
pub(super) fn sent_email(fields: &mut Fields, sent: String) -> SentName {
    if !sent.contains('@') {
        fields.add("email", "value_error", NOT_AN_EMAIL, sent.as_str());
    }
    let checked = identity::email(&sent).ok_or_else(|| NOT_AN_EMAIL.to_owned());
    SentName { field: "email", sent, checked }
}

fn username(fields: &mut Fields, text: String) -> String {
    match sent_username(fields, text) {
        SentName { checked: Ok(stored), .. } => stored,
        SentName { sent, checked: Err(msg), .. } => {
            // Otherwise it has been reported already.
            if is_possible(&sent) {
                fields.add("username", "value_error", msg, sent.as_str());
            }
            sent
        }
    }
}

/// A username for a user who may have it already: adds a problem where no user can.
pub(super) fn sent_username(fields: &mut Fields, text: String) -> SentName {
    let sent = fields.text("username", text, 1..=MAX_USERNAME);
    let checked =
        identity::username(&sent).map_err(|problem| format!("Value error, a username {problem}"));
    if !has_length(&sent) {
        return SentName { field: "username", sent, checked };
    }
    if !is_possible(&sent)
        && let Err(msg) = &checked
    {
        fields.add("username", "value_error", msg.as_str(), sent.as_str());
    }
    SentName { field: "username", sent, checked }
}

fn has_length(username: &str) -> bool {
    (1..=MAX_USERNAME).contains(&username.chars().count())
}

/// Whether a user may have had this name since before today's rules.
fn is_possible(username: &str) -> bool {
    has_length(username)
        && !username.contains(|c: char| c == '@' || c.is_control())
        && username.trim() == username
}

pub(super) fn full_name(fields: &mut Fields, text: String) -> String {
    fields.text("full_name", text, 0..=MAX_FULL_NAME)
}

/// A new password in `field`, in the form that is hashed. Whether it is easy to guess is checked
/// when it is hashed, as that takes long.
pub(super) fn password(
    fields: &mut Fields,
    rules: &Rules<'_>,
    field: &'static str,
    text: String,
) -> String {
    let range = rules.config.password_min_length..=password::MAX_CHARACTERS;
    if text.chars().count() > *range.end() {
        return fields.text(field, text, range);
    }
    match password::accepted(&text, rules.config.password_hasher) {
        Ok(prepared) => fields.text(field, prepared, range),
        Err(weakness) => {
            fields.add(field, "value_error", format!("Value error, {weakness}"), "");
            text
        }
    }
}
