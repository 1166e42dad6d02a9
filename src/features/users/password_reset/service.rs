//! Password reset operations.

use super::model::{NewPassword, PasswordReset};
use super::repository;
use crate::audit::{Action, Origin, PerformedBy, Subject};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::features::users::credentials::{refused, revoke_user_credentials};
use crate::features::users::repository as users;
use crate::features::users::service::{NOT_FOUND, hash_new, revalidate_in_transaction};
use crate::http::{Client, RequestId};
use crate::security::secret::{SecretHash, TokenKind};
use crate::security::{Actor, Scope};
use crate::state::AppState;
use chrono::TimeDelta;
use serde_json::json;

/// Lifetime of a token.
const LIFETIME: TimeDelta = TimeDelta::hours(1);

/// Issues a token for user `id` and revokes an earlier one.
pub async fn issue(app: &AppState, actor: &Actor, id: i64) -> Result<PasswordReset> {
    let token = TokenKind::PasswordReset.generate(&mut rand::rng());
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    revalidate_in_transaction(&mut tx, actor, Scope::Admin, now).await?;
    let user = users::lock(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let expires_at = now + LIFETIME;
    repository::put(&mut tx, id, SecretHash::of(token.expose()), expires_at).await?;
    let expires_at = Timestamp(expires_at);
    let details = json!({ "user_id": id, "username": user.username, "expires_at": expires_at });
    let (origin, action) = (actor.into(), Action::IssuePasswordReset);
    app.audit.record(&mut tx, &origin, action, Subject::User, &details, now).await?;
    tx.commit().await?;
    Ok(PasswordReset { token, expires_at })
}

/// Sets a new password with a token, and revokes all sessions of the user. The token cannot be used
/// again.
pub async fn spend(
    app: &AppState,
    new: NewPassword,
    client: &Client,
    request_id: RequestId,
) -> Result<()> {
    let attempt = app.throttle.attempt(client, None)?;
    let invalid_token = || {
        let error = Error::Refused("Invalid or expired token".into());
        refused(app, "reset_token_invalid", client, error)
    };
    if !TokenKind::PasswordReset.matches(&new.token) {
        return Err(invalid_token());
    }
    let token_hash = SecretHash::of(&new.token);
    let found = repository::find(&app.db, token_hash, app.clock.now()).await?;
    let user_id = found.ok_or_else(invalid_token)?;
    // Hashes only after the token was found, so that an invalid token costs no password hash.
    let known = users::find(&app.db, user_id).await?.ok_or_else(invalid_token)?;
    let names = [Some(&*known.email), Some(&*known.username), known.full_name.as_deref()];
    let hash = hash_new(app, "new_password", &new.password, &names).await?;
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    let user = users::lock(&mut tx, user_id).await?.filter(|user| user.is_active);
    let user = user.ok_or_else(invalid_token)?;
    if !repository::spend(&mut tx, token_hash, now).await? {
        return Err(invalid_token());
    }
    users::set_password(&mut tx, user_id, &hash, now).await?;
    revoke_user_credentials(&mut tx, user_id, None).await?;
    let (by, ip) = (PerformedBy::Anonymous, Some(client.ip));
    let origin = Origin { by, ip, request_id: Some(request_id) };
    let details = json!({ "user_id": user_id, "username": user.username });
    let action = Action::ResetPassword;
    app.audit.record(&mut tx, &origin, action, Subject::User, &details, now).await?;
    tx.commit().await?;
    attempt.succeeded();
    Ok(())
}
