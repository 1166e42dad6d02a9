//! Request bodies for updating and deleting the current user.

use crate::features::users::model::{
    MAX_CURRENT_PASSWORD, RequestedChanges, full_name, password, sent_email, sent_username,
};
use crate::http::{Checked, Fields, Rules, SHORT_TEXTS_BYTES, double_option, not_null};
use serde::Deserialize;
use utoipa::ToSchema;

/// Request to update the current user. Absent or null fields stay unchanged. Unknown fields are
/// ignored, so that a client can send back a user that it read.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"full_name": "Alice Pleasance Liddell"}))]
pub struct UpdateMe {
    /// Changing it requires `current_password`.
    #[schema(format = "email", max_length = 254)]
    email: Option<String>,
    #[schema(min_length = 1, max_length = 100)]
    username: Option<String>,
    #[schema(max_length = 255)]
    full_name: Option<String>,
    /// New password. Requires `current_password`.
    #[schema(format = "password", min_length = 8, max_length = 128)]
    password: Option<String>,
    /// Required to change the password or the email.
    #[schema(format = "password", max_length = 1024)]
    current_password: Option<String>,
}

/// JSON Merge Patch (RFC 7396) of the current user. Absent fields stay unchanged; null clears
/// `full_name`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"username": "alice", "full_name": null}))]
pub struct PatchMe {
    /// Changing it requires `current_password`.
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
    /// New password. Requires `current_password`.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(format = "password", min_length = 8, max_length = 128, nullable = false)]
    password: Option<String>,
    /// Required to change the password or the email.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(format = "password", max_length = 1024, nullable = false)]
    current_password: Option<String>,
}

/// A validated [`UpdateMe`] or [`PatchMe`].
pub struct CurrentUserChanges {
    pub(super) changes: RequestedChanges,
    pub(super) current_password: Option<String>,
}

/// Request to delete the current user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"current_password": "correct horse battery"}))]
pub struct DeleteMe {
    #[schema(format = "password", max_length = 1024)]
    current_password: String,
}

impl Checked for UpdateMe {
    type Valid = CurrentUserChanges;
    const MAX_BYTES: usize = SHORT_TEXTS_BYTES;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> CurrentUserChanges {
        let Self { email, username, full_name, password, current_password } = self;
        let full_name = full_name.map(Some);
        PatchMe { email, username, full_name, password, current_password }.check(fields, rules)
    }
}

impl Checked for PatchMe {
    type Valid = CurrentUserChanges;
    const MAX_BYTES: usize = SHORT_TEXTS_BYTES;
    const MERGE_PATCH: bool = true;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> CurrentUserChanges {
        let changes = RequestedChanges {
            email: self.email.map(|text| sent_email(fields, text)),
            username: self.username.map(|text| sent_username(fields, text)),
            full_name: self.full_name.map(|name| name.map(|text| full_name(fields, text))),
            password: self.password.map(|text| password(fields, rules, "password", text)),
            is_active: None,
        };
        let current = self.current_password.map(|text| current_password(fields, text));
        CurrentUserChanges { changes, current_password: current }
    }
}

impl Checked for DeleteMe {
    /// The current password.
    type Valid = String;
    const MAX_BYTES: usize = SHORT_TEXTS_BYTES;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> String {
        current_password(fields, self.current_password)
    }
}

fn current_password(fields: &mut Fields, text: String) -> String {
    fields.text("current_password", text, 0..=MAX_CURRENT_PASSWORD)
}
