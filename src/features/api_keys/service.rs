//! The rules of API keys. Every change and its audit row are one transaction.

use super::model::{
    ApiKey, ApiKeyChanges, AuditFilter, AuditLog, CleanupReport, CreatedApiKey, NewApiKey,
};
use super::repository::{self, Stored};
use crate::audit::{self, Action, Origin, Subject};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::http::Page;
use crate::security::{Actor, Scopes, secret};
use crate::state::AppState;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

const NOT_FOUND: Error = Error::NotFound("API key");

/// Makes a key, and tells its secret this once.
pub async fn create(app: &AppState, actor: &Actor, new: &NewApiKey) -> Result<CreatedApiKey> {
    let mut tx = begin(app, actor).await?;
    let now = app.clock.now();
    let created = insert(&mut tx, new, None, now).await?;
    let details = describe(&created.api_key);
    audit::record(
        &mut tx,
        actor.into(),
        Action::Create,
        Subject::Key(created.api_key.id),
        &details,
        now,
    )
    .await?;
    tx.commit().await?;
    Ok(created)
}

/// A page of keys, by id.
pub async fn list(app: &AppState, include_inactive: bool, page: Page) -> Result<Vec<ApiKey>> {
    let keys = repository::list(&app.db, include_inactive, page).await?;
    Ok(keys.into_iter().map(|key| with_last_use(app, key)).collect())
}

/// One key.
pub async fn get(app: &AppState, id: i64) -> Result<ApiKey> {
    let key = repository::find(&app.db, id).await?.ok_or(NOT_FOUND)?;
    Ok(with_last_use(app, key))
}

/// Active keys that end within `days`, the soonest first.
pub async fn expiring(app: &AppState, days: i64, page: Page) -> Result<Vec<ApiKey>> {
    let now = app.clock.now();
    let keys = repository::expiring(&app.db, now, now + TimeDelta::days(days), page).await?;
    Ok(keys.into_iter().map(|key| with_last_use(app, key)).collect())
}

/// Changes key `id`. A key that was rotated or has expired is never switched on again, and there
/// is always a key left that can manage keys.
pub async fn update(
    app: &AppState,
    actor: &Actor,
    id: i64,
    changes: &ApiKeyChanges,
) -> Result<ApiKey> {
    if id == actor.key_id() && changes.is_active == Some(false) {
        return Err(own_key("deactivate"));
    }
    let mut tx = begin(app, actor).await?;
    let now = app.clock.now();
    let before = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let revives = changes.is_active == Some(true) || changes.expires_at.is_some();
    if revives && let Some(end) = ended(&before, now) {
        let sentence =
            format!("This API key {end} and cannot be switched on again: create a new one");
        return Err(Error::Conflict(sentence.into()));
    }
    let after = repository::update(&mut tx, id, changes).await?.ok_or(NOT_FOUND)?;
    keep_an_admin(&mut tx, &before, Some(&after)).await?;
    let difference = difference(&before, &after);
    if !difference.is_empty() {
        let details = Value::Object(difference);
        audit::record(&mut tx, actor.into(), Action::Update, Subject::Key(id), &details, now)
            .await?;
    }
    tx.commit().await?;
    Ok(with_last_use(app, after))
}

/// Switches key `id` off. Twice is as good as once.
pub async fn deactivate(app: &AppState, actor: &Actor, id: i64) -> Result<ApiKey> {
    if id == actor.key_id() {
        return Err(own_key("deactivate"));
    }
    let mut tx = begin(app, actor).await?;
    let before = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let after = repository::switch_off(&mut tx, id, None).await?.ok_or(NOT_FOUND)?;
    keep_an_admin(&mut tx, &before, Some(&after)).await?;
    if before.is_active {
        let details = json!({ "name": after.name });
        let now = app.clock.now();
        audit::record(&mut tx, actor.into(), Action::Deactivate, Subject::Key(id), &details, now)
            .await?;
    }
    tx.commit().await?;
    Ok(with_last_use(app, after))
}

/// Removes key `id`; its audit rows stay.
pub async fn delete(app: &AppState, actor: &Actor, id: i64) -> Result<()> {
    if id == actor.key_id() {
        return Err(own_key("delete"));
    }
    let mut tx = begin(app, actor).await?;
    let before = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    if !repository::delete(&mut tx, id).await? {
        return Err(NOT_FOUND);
    }
    keep_an_admin(&mut tx, &before, None).await?;
    let (details, now) = (describe(&before), app.clock.now());
    audit::record(&mut tx, actor.into(), Action::Delete, Subject::Key(id), &details, now).await?;
    Ok(tx.commit().await?)
}

/// Puts a new key with the same properties in the place of key `id`, which is switched off for
/// ever.
pub async fn rotate(app: &AppState, actor: &Actor, id: i64) -> Result<CreatedApiKey> {
    let mut tx = begin(app, actor).await?;
    let now = app.clock.now();
    let old = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let ended = ended(&old, now).or((!old.is_active).then_some("is inactive"));
    if let Some(end) = ended {
        let sentence = format!("This API key {end} and cannot be rotated: create a new one");
        return Err(Error::Conflict(sentence.into()));
    }
    repository::switch_off(&mut tx, id, Some(now)).await?.ok_or(NOT_FOUND)?;
    let created = insert(&mut tx, &same_properties(&old)?, Some(&old), now).await?;
    let new_id = created.api_key.id;
    let details = json!({ "name": old.name, "rotated_to_id": new_id });
    audit::record(&mut tx, actor.into(), Action::Rotate, Subject::Key(id), &details, now).await?;
    let details = describe(&created.api_key);
    audit::record(&mut tx, actor.into(), Action::Create, Subject::Key(new_id), &details, now)
        .await?;
    tx.commit().await?;
    Ok(created)
}

/// Switches off keys whose end has come, each with its audit row.
pub async fn cleanup_expired(app: &AppState, origin: Origin) -> Result<CleanupReport> {
    let now = app.clock.now();
    let mut expired = vec![];
    // Mostly there is nothing to do, and a look costs other writers nothing.
    if repository::any_expired(&app.db, now).await? {
        let mut tx = app.db.begin().await?;
        expired = repository::switch_off_expired(&mut tx, now).await?;
        for key in &expired {
            let details = json!({ "name": key.name, "expires_at": key.expires_at });
            audit::record(&mut tx, origin, Action::Expire, Subject::Key(key.id), &details, now)
                .await?;
        }
        tx.commit().await?;
    }
    let deactivated_count = expired.len();
    let message = format!("Deactivated {deactivated_count} expired key(s)");
    Ok(CleanupReport { deactivated_count, message })
}

/// A page of the audit trail, newest first.
pub async fn audit_logs(app: &AppState, filter: &AuditFilter, page: Page) -> Result<Vec<AuditLog>> {
    let rows = repository::audit_logs(&app.db, filter, page).await?;
    let logs = rows.into_iter().map(|row| AuditLog {
        id: row.id,
        api_key_id: row.api_key_id,
        action: row.action,
        performed_by_key_id: row.performed_by_key_id,
        performed_by_ip: row.performed_by_ip,
        details: serde_json::from_str(&row.details).unwrap_or(Value::String(row.details)),
        timestamp: row.timestamp,
    });
    Ok(logs.collect())
}

/// Begins a change of keys. Such changes wait for one another, and one that waited sees whether
/// its caller still may: somebody may have switched the caller's key off meanwhile.
async fn begin(app: &AppState, actor: &Actor) -> Result<Tx> {
    let mut tx = app.db.begin().await?;
    repository::lock_installation(&mut tx).await?;
    let key = repository::find(&mut tx, actor.key_id()).await?;
    let still_admin = key.as_ref().is_some_and(|key| key.is_active && is_admin(key));
    if !still_admin {
        return Err(Error::Unauthenticated("Invalid or inactive API Key"));
    }
    Ok(tx)
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
    let usable = |key: &ApiKey| key.is_active && key.expires_at.is_none() && is_admin(key);
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
    let unreadable = |what| Error::Internal(format!("key {}: unreadable {what}", key.id).into());
    let list = key.allowed_ips.as_deref().map(str::parse).transpose();
    Ok(NewApiKey {
        name: key.name.clone(),
        description: key.description.clone(),
        scopes: key.scopes.parse().map_err(|_| unreadable("scopes"))?,
        expires_at: key.expires_at.map(|end| end.0),
        allowed_ips: list.map_err(|_| unreadable("allowed_ips"))?,
    })
}

/// The properties of a key for its audit row.
fn describe(key: &ApiKey) -> Value {
    json!({
        "name": key.name,
        "scopes": key.scopes,
        "expires_at": key.expires_at,
        "allowed_ips": key.allowed_ips,
        "rotated_from_id": key.rotated_from_id,
    })
}

/// The fields that changed, each with what it was and is.
fn difference(before: &ApiKey, after: &ApiKey) -> Map<String, Value> {
    let fields = |key: &ApiKey| {
        [
            ("name", json!(key.name)),
            ("description", json!(key.description)),
            ("scopes", json!(key.scopes)),
            ("is_active", json!(key.is_active)),
            ("expires_at", json!(key.expires_at)),
            ("allowed_ips", json!(key.allowed_ips)),
        ]
    };
    let pairs = fields(before).into_iter().zip(fields(after));
    let changed = pairs.filter(|((_, was), (_, is))| was != is);
    changed.map(|((name, was), (_, is))| (name.into(), json!({ "from": was, "to": is }))).collect()
}

/// `key` with a use that is not written yet.
fn with_last_use(app: &AppState, mut key: ApiKey) -> ApiKey {
    if let Some(used) = app.last_used.pending(key.id) {
        let at = Timestamp(used.at);
        if key.last_used_at.is_none_or(|known| known < at) {
            key.last_used_at = Some(at);
            key.last_used_ip = Some(used.ip.to_string());
        }
    }
    key
}
