//! Refused and revoked credentials of users.

use super::password_reset::repository as password_resets;
use super::sessions::repository as sessions;
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::http::Client;
use crate::security::authenticate;
use crate::state::AppState;

/// Logs a wrong password or token and counts it for the metrics and the audit log. Returns
/// `error`.
pub fn refused(app: &AppState, reason: &'static str, client: &Client, error: Error) -> Error {
    authenticate::refused(reason, None, client);
    app.failures.note(client.ip, reason);
    error
}

/// Revokes all sessions of a user except `kept`, and the user's password reset token. The user's
/// row must be locked.
pub async fn revoke_user_credentials(tx: &mut Tx, user_id: i64, kept: Option<i64>) -> Result<()> {
    sessions::delete_all(tx, user_id, kept).await?;
    Ok(password_resets::withdraw(tx, user_id).await?)
}
