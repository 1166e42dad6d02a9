//! Password reset models: request and response bodies.

use crate::core::clock::Timestamp;
use crate::features::users::model::password;
use crate::http::{Checked, Fields, Rules, SHORT_TEXTS_BYTES};
use crate::security::secret::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Maximum length of a token, in characters.
const MAX_TOKEN: usize = 1000;

/// A password reset token.
#[derive(Serialize, ToSchema)]
pub struct PasswordReset {
    /// Single-use token, never shown again.
    #[schema(
        value_type = String,
        example = "octr_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2vgxbH"
    )]
    pub token: Secret,
    /// Expiry of the token.
    pub expires_at: Timestamp,
}

/// Request to set a new password with a reset token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"token": "octr_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2vgxbH",
    "new_password": "battery horse correct"}))]
pub struct ResetPassword {
    /// Token from `POST /api/v1/users/{user_id}/password-reset`. Surrounding blanks are ignored.
    #[schema(max_length = 1000)]
    token: String,
    /// New password. The rules for registration apply.
    #[schema(format = "password", min_length = 8, max_length = 128)]
    new_password: String,
}

/// A validated [`ResetPassword`].
pub struct NewPassword {
    pub(super) token: String,
    pub(super) password: String,
}

impl Checked for ResetPassword {
    type Valid = NewPassword;
    const MAX_BYTES: usize = SHORT_TEXTS_BYTES;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> NewPassword {
        let password = password(fields, rules, "new_password", self.new_password);
        // A token is pasted from a message, often with a blank or a line break.
        let token = self.token.trim().to_owned();
        NewPassword { token: fields.text("token", token, 0..=MAX_TOKEN), password }
    }
}
