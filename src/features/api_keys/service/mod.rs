//! The rules of API keys. Every change and its audit row are one transaction.

mod failures;
mod repeat;
mod rotation;
mod trail;
mod turn;
mod usage;
mod verification;

pub use failures::record_failures;
pub use rotation::rotate;
pub(super) use trail::record;
pub use trail::{audit_logs, prune_trail};
pub use usage::{forget_old, usage};
pub use verification::verify;

use super::model::{ApiKey, ApiKeyChanges, CleanupReport, CreatedApiKey, KeyFilter, NewApiKey};
use super::repository::{self, Stored};
use crate::audit::{Action, Origin};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::http::{Listed, OldestFirst, Once, Window};
use crate::security::{Key, Scopes, secret};
use crate::state::AppState;
use chrono::{DateTime, TimeDelta, Utc};
use repeat::{refuse_repeat, remember};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use trail::{describe, difference};
use turn::begin;

const NOT_FOUND: Error = Error::NotFound("API key");
/// Keys switched off in one transaction, so that other writers get their turn.
const EXPIRED_AT_ONCE: i64 = 500;

/// Makes a key that is no stronger than the caller's, and returns its secret this once. With an
/// `Idempotency-Key` that was used before it makes none, and says which one it made then.
pub async fn create(
    app: &AppState,
    by: &Origin,
    new: &NewApiKey,
    once: Option<&Once>,
) -> Result<CreatedApiKey> {
    let (mut tx, turn) = begin(app, by).await?;
    let now = app.clock.now();
    refuse_repeat(&mut tx, once, now).await?;
    let created = insert(&mut tx, new, None, now).await?;
    let key = &created.api_key;
    turn.refuse_stronger(None, key)?;
    remember(&mut tx, once, key.id).await?;
    record(app, &mut tx, by, Action::Create, key, &describe(key), now).await?;
    tx.commit().await?;
    Ok(created)
}

/// A page of keys, by id.
pub async fn list(
    app: &AppState,
    filter: &KeyFilter,
    window: Window<OldestFirst>,
) -> Result<Listed<ApiKey>> {
    let slice = window.resolve("api keys")?;
    let unused_since = filter.unused_for_days.map(|days| app.clock.now() - TimeDelta::days(days));
    if unused_since.is_some()
        && let Err(error) = app.usage.flush(&app.db).await
    {
        tracing::warn!(event = "usage.flush_failed", %error, "the last uses are not listed yet");
    }
    let keys = repository::list(&app.db, filter, unused_since, &slice).await?;
    let keys = keys.into_iter().map(|key| with_last_use(app, key)).collect();
    Ok(slice.page(keys, |key: &ApiKey| key.id))
}

/// One key.
pub async fn get(app: &AppState, id: i64) -> Result<ApiKey> {
    let key = repository::find(&app.db, id).await?.ok_or(NOT_FOUND)?;
    Ok(with_last_use(app, key))
}

/// The caller's own key, from memory: this request is its last use.
pub async fn own(app: &AppState, key: &Key) -> Result<ApiKey> {
    match app.usage.last(key.id) {
        Some(_) => Ok(with_last_use(app, key.into())),
        // Written down since the request began.
        None => get(app, key.id).await,
    }
}

/// A page of the active keys that end within `days`, the soonest first.
pub async fn expiring(
    app: &AppState,
    days: i64,
    window: Window<OldestFirst>,
) -> Result<Listed<ApiKey>> {
    let slice = window.resolve("expiring api keys")?;
    let now = app.clock.now();
    let keys = repository::expiring(&app.db, now, now + TimeDelta::days(days), &slice).await?;
    let keys = keys.into_iter().map(|key| with_last_use(app, key)).collect();
    let end = |key: &ApiKey| key.expires_at.map_or(now, |end| end.0);
    Ok(slice.page(keys, |key| (end(key), key.id)))
}

/// Changes key `id`, which becomes in nothing stronger, or else no stronger than the caller's. A
/// key that was rotated or has expired is never switched on again, and there is always a key left
/// that can manage keys.
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
    let (mut tx, turn) = begin(app, by).await?;
    let now = app.clock.now();
    let before = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let revives = changes.is_active == Some(true) || changes.expires_at.is_some();
    if revives && let Some(end) = ended(&before, now) {
        let sentence =
            format!("This API key {end} and cannot be switched on again: create a new one");
        return Err(Error::Conflict(sentence.into()));
    }
    let after = repository::update(&mut tx, id, changes).await?.ok_or(NOT_FOUND)?;
    turn.refuse_stronger(Some(&before), &after)?;
    keep_an_admin(&mut tx, &before, Some(&after)).await?;
    let difference = difference(&before, &after);
    if !difference.is_empty() {
        let details = Value::Object(difference);
        record(app, &mut tx, by, Action::Update, &after, &details, now).await?;
    }
    commit(app, tx, id).await?;
    Ok(with_last_use(app, after))
}

/// Switches key `id` off. Twice is as good as once.
pub async fn deactivate(app: &AppState, by: &Origin, id: i64) -> Result<ApiKey> {
    if by.key_id() == Some(id) {
        return Err(own_key("deactivate"));
    }
    let (mut tx, _turn) = begin(app, by).await?;
    let before = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let after = repository::switch_off(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    keep_an_admin(&mut tx, &before, Some(&after)).await?;
    if before.is_active {
        let details = json!({ "name": after.name });
        record(app, &mut tx, by, Action::Deactivate, &after, &details, app.clock.now()).await?;
    }
    commit(app, tx, id).await?;
    Ok(with_last_use(app, after))
}

/// Removes key `id`; its audit rows stay.
pub async fn delete(app: &AppState, by: &Origin, id: i64) -> Result<()> {
    if by.key_id() == Some(id) {
        return Err(own_key("delete"));
    }
    let (mut tx, _turn) = begin(app, by).await?;
    let before = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    repository::lock_with_neighbours(&mut tx, &before).await?;
    if !repository::delete(&mut tx, id).await? {
        return Err(NOT_FOUND);
    }
    keep_an_admin(&mut tx, &before, None).await?;
    let (details, now) = (describe(&before), app.clock.now());
    record(app, &mut tx, by, Action::Delete, &before, &details, now).await?;
    commit(app, tx, id).await
}

/// Switches off keys whose end has come, each with its audit row.
pub async fn cleanup_expired(app: &AppState, by: &Origin) -> Result<CleanupReport> {
    let mut deactivated_count = 0;
    // Mostly there is nothing to do, and a look costs other writers nothing.
    while !repository::expired(&app.db, app.clock.now(), 1).await?.is_empty() {
        deactivated_count += switch_off_expired(app, by).await?;
    }
    let message = format!("Deactivated {deactivated_count} expired key(s)");
    Ok(CleanupReport { deactivated_count, message })
}

/// Some of them, in one transaction: how many.
async fn switch_off_expired(app: &AppState, by: &Origin) -> Result<usize> {
    let (mut tx, _turn) = begin(app, by).await?;
    let now = app.clock.now();
    let mut keys = vec![];
    for id in repository::expired(&mut tx, now, EXPIRED_AT_ONCE).await? {
        keys.push(repository::switch_off(&mut tx, id).await?.ok_or(NOT_FOUND)?);
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

/// Commits a change of key `id`: the next request sees it.
async fn commit(app: &AppState, tx: Tx, id: i64) -> Result<()> {
    let committed = tx.commit().await;
    // Whose answer was lost may have happened all the same.
    app.keys.changed(id);
    Ok(committed?)
}

/// Fails with 409 when `changes`, made to the key in use, would shut its holder out.
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
    let key = secret::make(&mut rand::rng());
    let stored = Stored { hash: secret::hash(&key), prefix: &secret::shown(&key) };
    let api_key = repository::insert(tx, stored, new, rotated_from, now).await?;
    Ok(CreatedApiKey { api_key, key })
}

/// Fails when `before` was the last usable administrator, and `after` is none.
async fn keep_an_admin(tx: &mut Tx, before: &ApiKey, after: Option<&ApiKey>) -> Result<()> {
    let usable = |key: &ApiKey| key.is_active && key.ends_at().is_none() && is_admin(key);
    let lost_one = usable(before) && !after.is_some_and(usable);
    if lost_one && repository::usable_admins(tx).await? == 0 {
        let sentence = "This is the last active admin key without an end: make another one first";
        return Err(Error::Conflict(sentence.into()));
    }
    Ok(())
}

fn is_admin(key: &ApiKey) -> bool {
    key.scopes.parse::<Scopes>().is_ok_and(Scopes::is_admin)
}

/// Why `key` can never work again, if so.
fn ended(key: &ApiKey, now: DateTime<Utc>) -> Option<&'static str> {
    if key.rotated_at.is_some() {
        Some("was rotated")
    } else if key.expires_at.is_some_and(|end| end.0 <= now) {
        Some("has expired")
    } else {
        None
    }
}

fn own_key(deed: &str) -> Error {
    Error::Refused(format!("Cannot {deed} the API key you're currently using").into())
}

fn same_properties(key: &ApiKey) -> Result<NewApiKey> {
    let unreadable = |what| {
        let sentence =
            format!("The stored {what} of this API key cannot be read: set it anew first");
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

/// `key` with a use that is not written yet.
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
