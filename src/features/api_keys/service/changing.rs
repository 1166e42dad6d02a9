//! Changes API keys. Each change and its audit entry are written in one transaction.

use super::super::model::{ApiKey, ApiKeyChanges, CleanupReport, CreatedApiKey, NewApiKey};
use super::super::repository;
use super::audit_log::{describe, difference, record};
use super::change_lock::begin;
use super::idempotency::{refuse_replay, store_created_key};
use super::reading::with_last_use;
use super::stored_key::{NOT_FOUND, UncommittedKey, commit, ended, insert};
use crate::audit::{Action, Origin};
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::http::IdempotencyRecord;
use crate::security::Scopes;
use crate::state::AppState;
use serde_json::{Value, json};

/// Maximum number of expired keys deactivated in one transaction, so that other writers are not
/// blocked for long.
const EXPIRED_BATCH: i64 = 500;

/// Creates a key and returns its secret, which is not stored. Fails with 403 if the key would be
/// stronger than the caller's, and with 409 if this `Idempotency-Key` already created a key.
pub async fn create(
    app: &AppState,
    by: &Origin,
    new: &NewApiKey,
    idempotency: Option<&IdempotencyRecord>,
) -> Result<CreatedApiKey> {
    prepare(app, by, new, idempotency).await?.commit(app).await
}

/// Like [`create`], and leaves the commit to the caller, who can show the secret first.
pub async fn prepare(
    app: &AppState,
    by: &Origin,
    new: &NewApiKey,
    idempotency: Option<&IdempotencyRecord>,
) -> Result<UncommittedKey> {
    let (mut tx, change_lock) = begin(app, by).await?;
    let now = app.clock.now();
    refuse_replay(&mut tx, idempotency, now).await?;
    let created = insert(&mut tx, new, None, now).await?;
    let key = &created.api_key;
    change_lock.refuse_stronger(None, key)?;
    store_created_key(&mut tx, idempotency, key.id).await?;
    record(app, &mut tx, by, Action::Create, key, &describe(key), now).await?;
    Ok(UncommittedKey::new(created, tx, None, Some(change_lock)))
}

/// Updates key `id`. Fails with 403 if the key would become stronger than before and stronger than
/// the caller's. Fails with 409 if a rotated or expired key would be reactivated, or if no usable
/// admin key would be left.
pub async fn update(
    app: &AppState,
    by: &Origin,
    id: i64,
    changes: &ApiKeyChanges,
) -> Result<ApiKey> {
    if by.key_id() == Some(id) {
        if changes.is_active == Some(false) {
            return Err(own_key("deactivate"));
        }
        refuse_lock_out(by, changes)?;
    }
    let (mut tx, change_lock) = begin(app, by).await?;
    let now = app.clock.now();
    let before = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let reactivates = changes.is_active == Some(true) || changes.expires_at.is_some();
    if reactivates && let Some(reason) = ended(&before, now) {
        let sentence = format!("This API key {reason} and cannot be reactivated: create a new one");
        return Err(Error::Conflict(sentence.into()));
    }
    let after = repository::update(&mut tx, id, changes).await?.ok_or(NOT_FOUND)?;
    change_lock.refuse_stronger(Some(&before), &after)?;
    keep_an_admin(&mut tx, &before, Some(&after)).await?;
    let difference = difference(&before, &after);
    if !difference.is_empty() {
        let details = Value::Object(difference);
        record(app, &mut tx, by, Action::Update, &after, &details, now).await?;
    }
    commit(app, tx, id).await?;
    Ok(with_last_use(app, after))
}

/// Deactivates key `id`. Idempotent.
pub async fn deactivate(app: &AppState, by: &Origin, id: i64) -> Result<ApiKey> {
    if by.key_id() == Some(id) {
        return Err(own_key("deactivate"));
    }
    let (mut tx, _turn) = begin(app, by).await?;
    let before = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let after = repository::deactivate(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    keep_an_admin(&mut tx, &before, Some(&after)).await?;
    if before.is_active {
        let details = json!({ "name": after.name });
        record(app, &mut tx, by, Action::Deactivate, &after, &details, app.clock.now()).await?;
    }
    commit(app, tx, id).await?;
    Ok(with_last_use(app, after))
}

/// Deletes key `id`. Its audit entries are kept.
pub async fn delete(app: &AppState, by: &Origin, id: i64) -> Result<()> {
    if by.key_id() == Some(id) {
        return Err(own_key("delete"));
    }
    let (mut tx, _turn) = begin(app, by).await?;
    let before = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    repository::lock_with_related(&mut tx, &before).await?;
    if !repository::delete(&mut tx, id).await? {
        return Err(NOT_FOUND);
    }
    keep_an_admin(&mut tx, &before, None).await?;
    let (details, now) = (describe(&before), app.clock.now());
    record(app, &mut tx, by, Action::Delete, &before, &details, now).await?;
    commit(app, tx, id).await
}

/// Deactivates expired keys and writes an audit entry for each.
pub async fn cleanup_expired(app: &AppState, by: &Origin) -> Result<CleanupReport> {
    let mut deactivated_count = 0;
    // Usually no key has expired; this read does not block writers.
    while !repository::expired(&app.db, app.clock.now(), 1).await?.is_empty() {
        deactivated_count += deactivate_expired_batch(app, by).await?;
    }
    let message = format!("Deactivated {deactivated_count} expired key(s)");
    Ok(CleanupReport { deactivated_count, message })
}

/// Deactivates a batch of expired keys in one transaction. Returns their number.
async fn deactivate_expired_batch(app: &AppState, by: &Origin) -> Result<usize> {
    let (mut tx, _turn) = begin(app, by).await?;
    let now = app.clock.now();
    let mut keys = vec![];
    for id in repository::expired(&mut tx, now, EXPIRED_BATCH).await? {
        keys.push(repository::deactivate(&mut tx, id).await?.ok_or(NOT_FOUND)?);
    }
    for key in &keys {
        let details = json!({ "name": key.name, "expires_at": key.ends_at() });
        record(app, &mut tx, by, Action::Expire, key, &details, now).await?;
    }
    let committed = tx.commit().await;
    for key in &keys {
        app.keys.changed(key.id);
    }
    committed?;
    Ok(keys.len())
}

/// Fails with 409 if `changes` to the caller's own key would exclude the caller's address.
fn refuse_lock_out(by: &Origin, changes: &ApiKeyChanges) -> Result<()> {
    let (Some(ip), Some(Some(list))) = (by.ip, &changes.allowed_ips) else { return Ok(()) };
    if list.contains(ip) {
        return Ok(());
    }
    let sentence = format!(
        "Your own address {ip} is not in allowed_ips: you would lock out the API key you're \
         currently using"
    );
    Err(Error::Conflict(sentence.into()))
}

/// Fails with 409 if `before` was the last usable admin key and `after` is not one.
async fn keep_an_admin(tx: &mut Tx, before: &ApiKey, after: Option<&ApiKey>) -> Result<()> {
    let usable = |key: &ApiKey| key.is_active && key.ends_at().is_none() && is_admin(key);
    let removes_admin = usable(before) && !after.is_some_and(usable);
    if removes_admin && repository::count_permanent_admins(tx).await? == 0 {
        let sentence =
            "This is the last active admin key without an expiry: create another one first";
        return Err(Error::Conflict(sentence.into()));
    }
    Ok(())
}

fn is_admin(key: &ApiKey) -> bool {
    key.scopes.parse::<Scopes>().is_ok_and(Scopes::is_admin)
}

fn own_key(operation: &str) -> Error {
    Error::Refused(format!("Cannot {operation} the API key you're currently using").into())
}
