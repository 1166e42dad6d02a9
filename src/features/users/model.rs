//! User models: database rows, request and response bodies, and their validation.

use crate::core::clock::Timestamp;
use crate::core::error::{Loc, Result};
use crate::core::identity::{self, MAX_USERNAME};
use crate::http::{
    Checked, Fields, PathValue, Rules, SHORT_TEXTS_BYTES, double_option, not_null, without_nul,
};
use crate::security::password;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const MAX_FULL_NAME: usize = 255;
/// Maximum length, in characters, of a password that is compared with a stored one. Larger than for
/// new passwords, because earlier rules may have allowed longer ones.
pub const MAX_CURRENT_PASSWORD: usize = 1024;

/// A username in a path, at most as long as the longest username.
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

/// Public profile of a user.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct PublicUser {
    /// Unique id; never reused.
    #[schema(example = 1)]
    pub id: i64,
    /// Unique, ignoring case, width and Unicode composition.
    #[schema(example = "alice")]
    pub username: String,
    /// Display name.
    #[schema(example = "Alice Liddell")]
    pub full_name: Option<String>,
    /// Time of registration.
    pub created_at: Timestamp,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema, sqlx::FromRow)]
pub struct User {
    /// Unique id; never reused.
    #[schema(example = 1)]
    pub id: i64,
    /// Unique, ignoring case, width, Unicode composition and the form of an IDN domain.
    #[schema(example = "alice@example.com")]
    pub email: String,
    /// Unique, ignoring case, width and Unicode composition.
    #[schema(example = "alice")]
    pub username: String,
    /// Display name.
    #[schema(example = "Alice Liddell")]
    pub full_name: Option<String>,
    /// Whether the user may sign in.
    pub is_active: bool,
    /// Legacy superuser flag; grants nothing.
    pub is_superuser: bool,
    /// Time of registration.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

/// Request to register a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "alice@example.com", "username": "alice", "password": "correct horse battery",
    "full_name": "Alice Liddell"}))]
pub struct CreateUser {
    /// Stored without surrounding blanks, with the domain in ASCII.
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// Letters, digits and ASCII punctuation except `@`, without spaces (RFC 8265,
    /// UsernameCasePreserved). Letters of one script, or of Latin and one East Asian script. Stored
    /// in normal width and NFC.
    #[schema(min_length = 1, max_length = 100)]
    username: String,
    /// Must not be easy to guess (zxcvbn score of at least 2): not a common password, a repeat, a
    /// sequence or a name of the user. Must not contain control or invisible characters. Prepared
    /// as OpaqueString (RFC 8265) before hashing.
    #[schema(format = "password", min_length = 8, max_length = 128)]
    password: String,
    #[schema(max_length = 255)]
    full_name: Option<String>,
}

/// A validated [`CreateUser`].
pub struct NewUser {
    pub(super) email: String,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) full_name: Option<String>,
}

/// Request to update a user. Absent or null fields stay unchanged. Unknown fields are ignored, so
/// that a client can send back a user that it read.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"full_name": "Alice Pleasance Liddell"}))]
pub struct UpdateUser {
    /// Requires an admin key.
    #[schema(format = "email", max_length = 254)]
    email: Option<String>,
    #[schema(min_length = 1, max_length = 100)]
    username: Option<String>,
    #[schema(max_length = 255)]
    full_name: Option<String>,
    /// Requires an admin key.
    #[schema(format = "password", min_length = 8, max_length = 128)]
    password: Option<String>,
    /// Requires an admin key.
    is_active: Option<bool>,
}

/// JSON Merge Patch (RFC 7396) of a user. Absent fields stay unchanged; null clears `full_name`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"username": "alice", "full_name": null}))]
pub struct PatchUser {
    /// Requires an admin key.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(format = "email", max_length = 254, nullable = false)]
    email: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(min_length = 1, max_length = 100, nullable = false)]
    username: Option<String>,
    /// Display name. Null removes it.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(max_length = 255, value_type = Option<String>)]
    full_name: Option<Option<String>>,
    /// Requires an admin key.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(format = "password", min_length = 8, max_length = 128, nullable = false)]
    password: Option<String>,
    /// Requires an admin key.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    is_active: Option<bool>,
}

/// Requested changes to a user. `None` leaves the field unchanged.
pub struct RequestedChanges {
    pub(super) email: Option<RequestedName>,
    pub(super) username: Option<RequestedName>,
    pub(super) full_name: Option<Option<String>>,
    pub(super) password: Option<String>,
    pub(super) is_active: Option<bool>,
}

/// A requested email or username. A user may keep a name that was valid under earlier rules.
pub struct RequestedName {
    field: &'static str,
    sent: String,
    /// The form to store, or the validation error.
    checked: Result<String, String>,
}

/// Validated changes to a user. `None` leaves the field unchanged.
pub struct UserChanges {
    pub(super) email: Option<String>,
    pub(super) username: Option<String>,
    pub(super) full_name: Option<Option<String>>,
    pub(super) password: Option<String>,
    pub(super) is_active: Option<bool>,
}

impl Checked for CreateUser {
    type Valid = NewUser;
    const MAX_BYTES: usize = SHORT_TEXTS_BYTES;

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
    type Valid = RequestedChanges;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> RequestedChanges {
        let Self { email, username, full_name, password, is_active } = self;
        let full_name = full_name.map(Some);
        PatchUser { email, username, full_name, password, is_active }.check(fields, rules)
    }
}

impl Checked for PatchUser {
    type Valid = RequestedChanges;
    const MERGE_PATCH: bool = true;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> RequestedChanges {
        RequestedChanges {
            email: self.email.map(|text| sent_email(fields, text)),
            username: self.username.map(|text| sent_username(fields, text)),
            full_name: self.full_name.map(|name| name.map(|text| full_name(fields, text))),
            password: self.password.map(|text| password(fields, rules, "password", text)),
            is_active: self.is_active,
        }
    }
}

impl RequestedName {
    /// Returns the form to store, or `None` if the name is the `current` one. Fails with 422 if the
    /// name is new and invalid.
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

impl RequestedChanges {
    /// Resolves the changes for a user with this current email and username.
    pub(super) fn settled(&self, email: &str, username: &str) -> Result<UserChanges> {
        let settled = |sent: &Option<RequestedName>, current| {
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
    /// The new email, username and full name.
    pub(super) fn names(&self) -> [Option<&str>; 3] {
        let full_name = self.full_name.as_ref().and_then(Option::as_deref);
        [self.email.as_deref(), self.username.as_deref(), full_name]
    }
}

const NOT_AN_EMAIL: &str = "value is not a valid email address";

fn email(fields: &mut Fields, text: String) -> String {
    identity::email(&text).unwrap_or_else(|| {
        fields.add("email", "value_error", NOT_AN_EMAIL, text.as_str());
        text
    })
}

/// A requested email. Reports an error only if no user can have this email; other checks depend on
/// the user's current email.
pub(super) fn sent_email(fields: &mut Fields, sent: String) -> RequestedName {
    if !sent.contains('@') {
        fields.add("email", "value_error", NOT_AN_EMAIL, sent.as_str());
    }
    let checked = identity::email(&sent).ok_or_else(|| NOT_AN_EMAIL.to_owned());
    RequestedName { field: "email", sent, checked }
}

fn username(fields: &mut Fields, text: String) -> String {
    match sent_username(fields, text) {
        RequestedName { checked: Ok(stored), .. } => stored,
        RequestedName { sent, checked: Err(msg), .. } => {
            // Otherwise, `sent_username` has already reported the error.
            if was_allowed(&sent) {
                fields.add("username", "value_error", msg, sent.as_str());
            }
            sent
        }
    }
}

/// A requested username. Reports an error only if no user can have this username; other checks
/// depend on the user's current username.
pub(super) fn sent_username(fields: &mut Fields, text: String) -> RequestedName {
    let sent = fields.text("username", text, 1..=MAX_USERNAME);
    let checked =
        identity::username(&sent).map_err(|problem| format!("Value error, a username {problem}"));
    if !has_length(&sent) {
        return RequestedName { field: "username", sent, checked };
    }
    if !was_allowed(&sent)
        && let Err(msg) = &checked
    {
        fields.add("username", "value_error", msg.as_str(), sent.as_str());
    }
    RequestedName { field: "username", sent, checked }
}

fn has_length(username: &str) -> bool {
    (1..=MAX_USERNAME).contains(&username.chars().count())
}

/// Returns whether earlier rules allowed this username, so that an existing user may have it.
fn was_allowed(username: &str) -> bool {
    has_length(username)
        && !username.contains(|c: char| c == '@' || c.is_control())
        && username.trim() == username
}

pub(super) fn full_name(fields: &mut Fields, text: String) -> String {
    fields.text("full_name", text, 0..=MAX_FULL_NAME)
}

/// Validates a new password and returns it in the form to hash, whose length counts. Its strength is checked when it is
/// hashed, because that check is slow.
pub(super) fn password(
    fields: &mut Fields,
    rules: &Rules<'_>,
    field: &'static str,
    text: String,
) -> String {
    let range = rules.config.password_min_length..=password::MAX_CHARACTERS;
    if text.chars().count() > password::MAX_TYPED_CHARACTERS {
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
