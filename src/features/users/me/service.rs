//! Operations of signed-in users on their own account.

use super::model::CurrentUserChanges;
use crate::audit::{Action, Subject};
use crate::core::error::{Error, Result};
use crate::features::users::credentials::{refused, revoke_user_credentials};
use crate::features::users::model::User;
use crate::features::users::repository::{self, Credentials};
use crate::features::users::service::{self, details, remove, sensitive_changes};
use crate::features::users::sessions::service::require_active_session;
use crate::http::{Client, Fields};
use crate::security::session::ENDED;
use crate::security::{Account, SignedIn};
use crate::state::AppState;
use serde_json::Value;

/// Returns the current user.
pub async fn get(app: &AppState, user: &SignedIn) -> Result<User> {
    service::get(&app.db, user.user_id()).await
}

/// Updates the current user. A new password revokes all other sessions. Fails with 403 if the
/// current password is wrong, and with 409 if the user was changed at the same time.
pub async fn update(
    app: &AppState,
    user: &SignedIn,
    client: &Client,
    sent: CurrentUserChanges,
) -> Result<User> {
    let CurrentUserChanges { changes: sent, current_password } = sent;
    let id = user.user_id();
    let known = credentials_of(app, user).await?;
    let changes = sent.settled(&known.email, &known.username)?;
    let needs_verification = changes.password.is_some() || changes.email.is_some();
    if needs_verification {
        let missing =
            || Fields::refusal("body", CURRENT_PASSWORD, "missing", "Field required", Value::Null);
        let current = current_password.ok_or_else(missing)?;
        verify_password(app, client, &known, current).await?;
    }
    let hash = match &changes.password {
        Some(password) => {
            let current = [&*known.email, &*known.username].map(Some);
            let names = [&current[..], &[known.full_name.as_deref()], &changes.names()].concat();
            Some(service::hash_new(app, "password", password, &names).await?)
        }
        None => None,
    };
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    let before = if needs_verification {
        let hash = &known.password_hash;
        repository::confirm(&mut tx, id, hash, hash).await?
    } else {
        repository::lock(&mut tx, id).await?
    };
    require_active_session(app, &mut tx, user).await?;
    let before = before.ok_or_else(concurrent_change)?;
    let changes = sent.settled(&before.email, &before.username)?;
    let rights = sensitive_changes(&before, &changes);
    if !rights.is_empty() && !needs_verification {
        return Err(concurrent_change());
    }
    let after = service::write(&mut tx, &before, &changes, hash, now).await?;
    if changes.password.is_some() {
        revoke_user_credentials(&mut tx, id, Some(user.session().id)).await?;
    }
    if !rights.is_empty() {
        let (origin, action) = (user.into(), Action::UpdateUser);
        let details = details(&after, &rights);
        app.audit.record(&mut tx, &origin, action, Subject::User, &details, now).await?;
    }
    tx.commit().await?;
    Ok(after)
}

/// Deletes the current user. Fails as [`update`] does.
pub async fn delete(
    app: &AppState,
    user: &SignedIn,
    client: &Client,
    current_password: String,
) -> Result<()> {
    let known = credentials_of(app, user).await?;
    verify_password(app, client, &known, current_password).await?;
    let mut tx = app.db.begin().await?;
    let hash = &known.password_hash;
    let confirmed = repository::confirm(&mut tx, known.id, hash, hash).await?;
    require_active_session(app, &mut tx, user).await?;
    let confirmed = confirmed.ok_or_else(concurrent_change)?;
    let left = remove(app, &mut tx, &confirmed, &user.into()).await?;
    service::commit_removal(app, tx, left).await
}

/// Name of the request field with the current password.
const CURRENT_PASSWORD: &str = "current_password";

async fn credentials_of(app: &AppState, user: &SignedIn) -> Result<Credentials> {
    let found = repository::find_credentials(&app.db, user.user_id()).await?;
    found.ok_or(Error::Unauthenticated(ENDED))
}

/// Fails with 403 if `password` is not the current password of `known`. Attempts count against the
/// sign-in rate limit.
async fn verify_password(
    app: &AppState,
    client: &Client,
    known: &Credentials,
    password: String,
) -> Result<()> {
    let attempt = app.throttle.attempt(client, Some(Account::User(known.id)))?;
    if !app.passwords.verify(password, known.password_hash.clone()).await? {
        let error = Error::Forbidden("The current password is wrong".into());
        return Err(refused(app, "password_wrong", client, error));
    }
    attempt.succeeded();
    Ok(())
}

fn concurrent_change() -> Error {
    Error::Conflict("Another request changed your user at the same time: try again".into())
}
