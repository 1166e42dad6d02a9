//! API key operations. Each change and its audit entry are written in one transaction.

mod audit_log;
mod change_lock;
mod failures;
mod idempotency;
mod rotation;
mod usage;
mod verification;

pub(super) use audit_log::record;
pub use audit_log::{audit_logs, prune_audit_log};
pub use failures::record_failures;
pub use rotation::rotate;
pub use usage::{forget_old, usage};
pub use verification::verify;

use super::model::{ApiKey, ApiKeyChanges, ApiKeyFilter, CleanupReport, CreatedApiKey, NewApiKey};
use super::repository::{self, StoredSecret};
use crate::audit::{Action, Origin};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::http::{IdempotencyRecord, ListPage, OldestFirst, Window};
use crate::security::{Key, Scopes, secret};
use crate::state::AppState;
use audit_log::{describe, difference};
use change_lock::begin;
use chrono::{DateTime, TimeDelta, Utc};
use idempotency::{refuse_replay, store_created_key};
use serde_json::{Value, json};
use std::num::NonZeroU32;

const NOT_FOUND: Error = Error::NotFound("API key");
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
    let (mut tx, change_lock) = begin(app, by).await?;
    let now = app.clock.now();
    refuse_replay(&mut tx, idempotency, now).await?;
    let created = insert(&mut tx, new, None, now).await?;
    let key = &created.api_key;
    change_lock.refuse_stronger(None, key)?;
    store_created_key(&mut tx, idempotency, key.id).await?;
    record(app, &mut tx, by, Action::Create, key, &describe(key), now).await?;
    tx.commit().await?;
    Ok(created)
}

/// Lists keys by id.
pub async fn list(
    app: &AppState,
    filter: &ApiKeyFilter,
    window: Window<OldestFirst>,
) -> Result<ListPage<ApiKey>> {
    let slice = window.resolve("api keys")?;
    let unused_since = filter.unused_for_days.map(|days| app.clock.now() - TimeDelta::days(days));
    if unused_since.is_some()
        && let Err(error) = app.usage.flush(&app.db).await
    {
        tracing::warn!(
            event = "usage.flush_failed",
            %error,
            "failed to write key usage: the list omits the most recent uses"
        );
    }
    let keys = repository::list(&app.db, filter, unused_since, &slice).await?;
    let keys = keys.into_iter().map(|key| with_last_use(app, key)).collect();
    Ok(slice.page(keys, |key: &ApiKey| key.id))
}

/// Returns key `id`.
pub async fn get(app: &AppState, id: i64) -> Result<ApiKey> {
    let key = repository::find(&app.db, id).await?.ok_or(NOT_FOUND)?;
    Ok(with_last_use(app, key))
}

/// Returns the caller's key from the cache. Its last use is the current request.
pub async fn own(app: &AppState, key: &Key) -> Result<ApiKey> {
    match app.usage.last(key.id) {
        Some(_) => Ok(with_last_use(app, key.into())),
        // The use was written to the database since the request began.
        None => get(app, key.id).await,
    }
}

/// Lists active keys that expire within `days`, the earliest first.
pub async fn expiring(
    app: &AppState,
    days: i64,
    window: Window<OldestFirst>,
) -> Result<ListPage<ApiKey>> {
    let slice = window.resolve("expiring api keys")?;
    let now = app.clock.now();
    let keys = repository::expiring(&app.db, now, now + TimeDelta::days(days), &slice).await?;
    let keys = keys.into_iter().map(|key| with_last_use(app, key)).collect();
    let end = |key: &ApiKey| key.expires_at.map_or(now, |end| end.0);
    Ok(slice.page(keys, |key| (end(key), key.id)))
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

/// Commits a change of key `id` and invalidates its cache entry.
async fn commit(app: &AppState, tx: Tx, id: i64) -> Result<()> {
    let committed = tx.commit().await;
    // A commit that returned an error may still have taken effect.
    app.keys.changed(id);
    Ok(committed?)
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

pub(super) async fn insert(
    tx: &mut Tx,
    new: &NewApiKey,
    rotated_from: Option<&ApiKey>,
    now: DateTime<Utc>,
) -> Result<CreatedApiKey> {
    let key = secret::generate_key(&mut rand::rng());
    let stored = StoredSecret { hash: secret::hash(&key), prefix: &secret::display_prefix(&key) };
    let api_key = repository::insert(tx, stored, new, rotated_from, now).await?;
    Ok(CreatedApiKey { api_key, key })
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

/// Why `key` can never become valid again; `None` if it can.
fn ended(key: &ApiKey, now: DateTime<Utc>) -> Option<&'static str> {
    if key.rotated_at.is_some() {
        Some("was rotated")
    } else if key.expires_at.is_some_and(|end| end.0 <= now) {
        Some("has expired")
    } else {
        None
    }
}

fn own_key(operation: &str) -> Error {
    Error::Refused(format!("Cannot {operation} the API key you're currently using").into())
}

fn same_properties(key: &ApiKey) -> Result<NewApiKey> {
    let unreadable = |what| {
        let sentence =
            format!("The stored {what} of this API key cannot be read: set a new value first");
        Error::Conflict(sentence.into())
    };
    let list = key.allowed_ips.as_deref().map(str::parse).transpose();
    let rate_limit = key.rate_limit_per_minute.and_then(|n| u32::try_from(n).ok());
    Ok(NewApiKey {
        name: key.name.clone(),
        description: key.description.clone(),
        scopes: key.scopes.parse().map_err(|_| unreadable("scopes"))?,
        expires_at: key.expires_at.map(|end| end.0),
        allowed_ips: list.map_err(|_| unreadable("allowed_ips"))?,
        rate_limit: rate_limit.and_then(NonZeroU32::new),
    })
}

/// Adds the last use to `key` if it is not in the database yet.
fn with_last_use(app: &AppState, mut key: ApiKey) -> ApiKey {
    if let Some(used) = app.usage.last(key.id) {
        let at = Timestamp(used.at);
        if key.last_used_at.is_none_or(|known| known < at) {
            key.last_used_at = Some(at);
            key.last_used_ip = used.ip.map(|ip| ip.to_string());
        }
    }
    key
}
