//! What resetting a password takes and gives.

use crate::core::clock::Timestamp;
use crate::features::users::model::password;
use crate::http::{Checked, Fields, Rules};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most characters of a token that is looked up.
const MAX_TOKEN: usize = 1000;

/// What lets somebody set a new password.
#[derive(Serialize, ToSchema)]
pub struct PasswordReset {
    /// The token, which is never shown again, and works once.
    #[schema(example = "octr_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2vgxbH")]
    pub token: String,
    /// When it works no more.
    pub expires_at: Timestamp,
}

/// Somebody who sets a new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"token": "octr_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2vgxbH",
    "new_password": "battery horse correct"}))]
pub struct ResetPassword {
    /// From `POST /api/v1/users/{user_id}/password-reset`.
    #[schema(max_length = 1000)]
    token: String,
    /// By the same rules as at registration.
    #[schema(format = "password", min_length = 8, max_length = 128)]
    new_password: String,
}

/// A token, and a password that keeps the rules.
pub struct NewPassword {
    pub(super) token: String,
    pub(super) password: String,
}

impl Checked for ResetPassword {
    type Valid = NewPassword;
    const MAX_BYTES: usize = 4096;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> NewPassword {
        let password = password(fields, rules, "new_password", self.new_password);
        NewPassword { token: fields.text("token", self.token, 0..=MAX_TOKEN), password }
    }
}
