//! The rules of what users do with themselves.

use super::model::OwnChanges;
use crate::audit::{Action, Subject};
use crate::core::error::{Error, Result};
use crate::features::users::model::User;
use crate::features::users::repository::{self, Credentials};
use crate::features::users::service::{self, details, remove, rights_changed};
use crate::features::users::sessions::service::{end_those_of, refused, still_going_on};
use crate::http::{Client, Fields};
use crate::security::session::ENDED;
use crate::security::{Account, LoggedIn};
use crate::state::AppState;
use serde_json::Value;

/// Oneself.
pub async fn get(app: &AppState, user: &LoggedIn) -> Result<User> {
    service::get(&app.db, user.user_id()).await
}

/// Changes oneself. Another password ends all other sessions.
pub async fn update(
    app: &AppState,
    user: &LoggedIn,
    client: &Client,
    sent: OwnChanges,
) -> Result<User> {
    let OwnChanges { changes: sent, current_password } = sent;
    let id = user.user_id();
    let known = own(app, user).await?;
    let changes = sent.settled(&known.email, &known.username)?;
    let is_proven = changes.password.is_some() || changes.email.is_some();
    if is_proven {
        let missing = || Fields::refusal("body", FIELD, "missing", "Field required", Value::Null);
        let current = current_password.ok_or_else(missing)?;
        prove(app, client, &known, current).await?;
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
    let before = if is_proven {
        let hash = &known.password_hash;
        repository::confirm(&mut tx, id, hash, hash).await?
    } else {
        repository::lock(&mut tx, id).await?
    };
    still_going_on(app, &mut tx, user).await?;
    let before = before.ok_or_else(changed_meanwhile)?;
    let changes = sent.settled(&before.email, &before.username)?;
    let rights = rights_changed(&before, &changes);
    if !rights.is_empty() && !is_proven {
        return Err(changed_meanwhile());
    }
    let after = service::write(&mut tx, &before, &changes, hash, now).await?;
    if changes.password.is_some() {
        end_those_of(&mut tx, id, Some(user.session().id)).await?;
    }
    if !rights.is_empty() {
        let (origin, action) = (user.into(), Action::UpdateUser);
        let details = details(&after, &rights);
        app.audit.record(&mut tx, &origin, action, Subject::User, &details, now).await?;
    }
    tx.commit().await?;
    Ok(after)
}

/// Removes oneself, as an administrator would.
pub async fn delete(
    app: &AppState,
    user: &LoggedIn,
    client: &Client,
    current_password: String,
) -> Result<()> {
    let known = own(app, user).await?;
    prove(app, client, &known, current_password).await?;
    let mut tx = app.db.begin().await?;
    let hash = &known.password_hash;
    let confirmed = repository::confirm(&mut tx, known.id, hash, hash).await?;
    still_going_on(app, &mut tx, user).await?;
    let confirmed = confirmed.ok_or_else(changed_meanwhile)?;
    let left = remove(app, &mut tx, &confirmed, &user.into()).await?;
    service::commit_removal(app, tx, left).await
}

/// The field of the password a user has now.
const FIELD: &str = "current_password";

async fn own(app: &AppState, user: &LoggedIn) -> Result<Credentials> {
    let found = repository::find_credentials(&app.db, user.user_id()).await?;
    found.ok_or(Error::Unauthenticated(ENDED))
}

/// Fails unless `password` is the one `known` has. Tries count as logging in does.
async fn prove(
    app: &AppState,
    client: &Client,
    known: &Credentials,
    password: String,
) -> Result<()> {
    let attempt = app.throttle.attempt(client, Some(Account::User(known.id)))?;
    if !app.passwords.verify(password, known.password_hash.clone()).await? {
        let answer = Error::Forbidden("The current password is not this one".into());
        return Err(refused(app, "password_wrong", client, answer));
    }
    attempt.succeeded();
    Ok(())
}

fn changed_meanwhile() -> Error {
    Error::Conflict("Your user was changed while the request was at work: send it again".into())
}
