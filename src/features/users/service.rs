//! User operations.

use super::credentials::revoke_user_credentials;
use super::model::{NewUser, PublicUser, RequestedChanges, User, UserChanges};
use super::password_reset::repository as password_resets;
use super::{names, repository};
use crate::audit::{Action, Origin, Subject};
use crate::core::error::{Error, Result};
use crate::db::{Db, Tx};
use crate::http::{Client, Fields, ListPage, OldestFirst, Window};
use crate::security::{Actor, Scope, Scopes, revalidate};
use crate::state::AppState;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

pub(super) const NOT_FOUND: Error = Error::NotFound("User");

pub(super) fn taken() -> Error {
    Error::Refused("Email or username already registered".into())
}

/// Registers a user. `actor` is the caller's API key; `None` for an anonymous caller.
pub async fn register(
    app: &AppState,
    new: &NewUser,
    actor: Option<&Actor>,
    client: &Client,
) -> Result<User> {
    // Checked before hashing the password, so that a taken name costs no hash. The insert detects a
    // concurrent registration.
    let (email, username) = (Some(&*new.email), Some(&*new.username));
    if repository::is_taken(&app.db, email, username, None).await? {
        return Err(taken());
    }
    let names = [email, username, new.full_name.as_deref()];
    let hash = hash_new(app, "password", &new.password, &names).await?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let user = repository::insert(&mut tx, new, &hash, now).await?.ok_or_else(taken)?;
    names::check_available(&mut tx, &user, now).await?;
    let details = json!({ "user_id": user.id, "username": user.username });
    let by = actor.map(Origin::from);
    app.audit.record_of_key(&mut tx, by.as_ref(), Action::Register, &details, now).await?;
    tx.commit().await?;
    if by.is_none() {
        app.registrations.note(client.ip, user.id);
    }
    Ok(user)
}

/// Lists users by id.
pub async fn list(db: &Db, window: Window<OldestFirst>) -> Result<ListPage<PublicUser>> {
    let slice = window.resolve("users")?;
    let users = repository::list(db, &slice).await?;
    Ok(slice.page(users, |user| user.id))
}

/// Returns user `id`.
pub async fn get(db: &Db, id: i64) -> Result<User> {
    repository::find(db, id).await?.ok_or(NOT_FOUND)
}

/// Returns a user by username, ignoring case.
pub async fn get_by_username(db: &Db, username: &str) -> Result<PublicUser> {
    repository::find_by_username(db, username).await?.ok_or(NOT_FOUND)
}

/// Updates user `id`. Only an admin key may change the password, email and status, because these
/// allow taking over the account. A new password and deactivation revoke the user's
/// sessions.
pub async fn update(
    app: &AppState,
    actor: &Actor,
    id: i64,
    sent: &RequestedChanges,
) -> Result<User> {
    if sent.password.is_some() && !actor.scopes().is_admin() {
        return Err(admin_required());
    }
    let hash = match &sent.password {
        Some(password) => {
            let known = get(&app.db, id).await?;
            let changes = sent.settled(&known.email, &known.username)?;
            let current = [&*known.email, &*known.username].map(Some);
            let names = [&current[..], &[known.full_name.as_deref()], &changes.names()].concat();
            Some(hash_new(app, "password", password, &names).await?)
        }
        None => None,
    };
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    let is_admin =
        revalidate_in_transaction(&mut tx, actor, Scope::UsersWrite, now).await?.is_admin();
    let before = repository::lock(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let changes = &sent.settled(&before.email, &before.username)?;
    let rights = sensitive_changes(&before, changes);
    if !rights.is_empty() && !is_admin {
        return Err(admin_required());
    }
    let after = write(&mut tx, &before, changes, hash, now).await?;
    let is_deactivated = before.is_active && !after.is_active;
    if changes.password.is_some() || is_deactivated {
        revoke_user_credentials(&mut tx, id, None).await?;
    }
    let changed = [rights, names_changed(&before, &after)].concat();
    if !changed.is_empty() {
        let details = details(&after, &changed);
        let (origin, action) = (actor.into(), Action::UpdateUser);
        app.audit.record(&mut tx, &origin, action, Subject::User, &details, now).await?;
    }
    tx.commit().await?;
    Ok(after)
}

/// Hashes a new password of a user with these `names`. Fails with 422 at `field` if the password is
/// easy to guess.
pub(super) async fn hash_new(
    app: &AppState,
    field: &'static str,
    password: &str,
    names: &[Option<&str>],
) -> Result<String> {
    let names = names.iter().flatten().map(|name| (*name).to_owned()).collect();
    app.passwords.hash_new(password.to_owned(), names).await?.map_err(|weakness| {
        Fields::refusal("body", field, "value_error", format!("Value error, {weakness}"), "")
    })
}

/// Writes `changes` to user `before`, whose row must be locked.
pub(super) async fn write(
    tx: &mut Tx,
    before: &User,
    changes: &UserChanges,
    password_hash: Option<String>,
    now: DateTime<Utc>,
) -> Result<User> {
    let (id, email, username) = (before.id, changes.email.as_deref(), changes.username.as_deref());
    if repository::is_taken(&mut *tx, email, username, Some(id)).await? {
        return Err(taken());
    }
    let after = match repository::update(tx, id, changes, password_hash, now).await {
        Err(error) if Error::is_unique_violation(&error) => return Err(taken()),
        result => result?.ok_or(NOT_FOUND)?,
    };
    if username.is_some() {
        names::release(tx, before, &after, now).await?;
        names::check_available(tx, &after, now).await?;
    }
    if email.is_some() {
        password_resets::withdraw(tx, id).await?;
    }
    Ok(after)
}

/// Deletes user `id`. Their messages are kept without an author.
pub async fn delete(app: &AppState, actor: &Actor, id: i64) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    revalidate_in_transaction(&mut tx, actor, Scope::Admin, now).await?;
    let user = repository::lock(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let left = remove(app, &mut tx, &user, &actor.into()).await?;
    commit_removal(app, tx, left).await
}

/// Commits the deletion of a user and notifies subscribers of the conversations in `left`.
pub(super) async fn commit_removal(app: &AppState, tx: Tx, left: Vec<i64>) -> Result<()> {
    let committed = tx.commit().await;
    // Cached API keys may name the user as their creator.
    app.keys.invalidate_all();
    for id in left {
        app.live.notify(id);
    }
    Ok(committed?)
}

/// Deletes `user`, whose row must be locked. Returns the ids of the user's conversations, whose
/// subscribers must be notified after the commit.
pub(super) async fn remove(
    app: &AppState,
    tx: &mut Tx,
    user: &User,
    origin: &Origin,
) -> Result<Vec<i64>> {
    let now = app.clock.now();
    let left = repository::lock_conversations(tx, user.id, now).await?;
    // The foreign key would delete the sessions too, but in no fixed order: deadlocks are possible.
    revoke_user_credentials(tx, user.id, None).await?;
    if !repository::delete(tx, user.id).await? {
        return Err(NOT_FOUND);
    }
    names::reserve(tx, user, now).await?;
    let details = json!({ "user_id": user.id, "username": user.username });
    app.audit.record(tx, origin, Action::DeleteUser, Subject::User, &details, now).await?;
    Ok(left)
}

/// Details of the audit entry for a change of `user`.
pub(super) fn details(user: &User, changed: &[Value]) -> Value {
    json!({ "user_id": user.id, "username": user.username, "changed": changed })
}

/// Returns the current scopes of `actor`. Fails if it lacks `scope`. Read in the transaction,
/// because the key may have changed since the request began.
pub(super) async fn revalidate_in_transaction(
    tx: &mut Tx,
    actor: &Actor,
    scope: Scope,
    now: DateTime<Utc>,
) -> Result<Scopes> {
    let key =
        revalidate::revalidate_in_transaction(tx, actor.key_id(), Some(actor.ip()), scope, now)
            .await?;
    Ok(key.scopes())
}

/// The names of changed fields that require an admin key or the current password.
pub(super) fn sensitive_changes(before: &User, changes: &UserChanges) -> Vec<Value> {
    let email = changes.email.as_ref().is_some_and(|email| *email != before.email);
    let status = changes.is_active.is_some_and(|is_active| is_active != before.is_active);
    let fields =
        [("password", changes.password.is_some()), ("email", email), ("is_active", status)];
    fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name.into()).collect()
}

/// The names of the other changed fields.
fn names_changed(before: &User, after: &User) -> Vec<Value> {
    let fields = [
        ("username", before.username != after.username),
        ("full_name", before.full_name != after.full_name),
    ];
    fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name.into()).collect()
}

fn admin_required() -> Error {
    let sentence = "Admin scope required to change a user's password, email or status".to_owned();
    Error::ScopeMissing { scope: Scope::Admin.as_str(), sentence }
}
