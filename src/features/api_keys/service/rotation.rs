//! Key rotation.

use super::super::model::{CreatedApiKey, Rotation};
use super::super::repository;
use super::audit_log::{describe, record};
use super::change_lock::begin;
use super::idempotency::{refuse_replay, store_created_key};
use super::stored_key::{NOT_FOUND, UncommittedKey, ended, insert, same_properties};
use crate::audit::{Action, Origin};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::http::IdempotencyRecord;
use crate::state::AppState;
use chrono::TimeDelta;
use serde_json::json;

/// Replaces key `id` with a new key that has the same properties. The old key stays valid for the
/// grace period and can never be reactivated. Fails with 403 if the key is stronger than the
/// caller's, and with 409 if this `Idempotency-Key` already created a key.
pub async fn rotate(
    app: &AppState,
    by: &Origin,
    id: i64,
    rotation: Rotation,
    idempotency: Option<&IdempotencyRecord>,
) -> Result<CreatedApiKey> {
    prepare_rotation(app, by, id, rotation, idempotency).await?.commit(app).await
}

/// Like [`rotate`], and leaves the commit to the caller, who can show the secret first.
pub async fn prepare_rotation(
    app: &AppState,
    by: &Origin,
    id: i64,
    rotation: Rotation,
    idempotency: Option<&IdempotencyRecord>,
) -> Result<UncommittedKey> {
    let (mut tx, change_lock) = begin(app, by).await?;
    let now = app.clock.now();
    refuse_replay(&mut tx, idempotency, now).await?;
    let old = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let ended = ended(&old, now).or((!old.is_active).then_some("is inactive"));
    if let Some(reason) = ended {
        let sentence = format!("This API key {reason} and cannot be rotated: create a new one");
        return Err(Error::Conflict(sentence.into()));
    }
    let created = insert(&mut tx, &same_properties(&old)?, Some(&old), now).await?;
    // The caller receives the new secret, so rotation must not grant more than the caller has.
    change_lock.refuse_stronger(None, &created.api_key)?;
    let new_id = created.api_key.id;
    let grace_end = (rotation.grace > TimeDelta::zero()).then(|| now + rotation.grace);
    let old = repository::replace(&mut tx, id, new_id, now, grace_end).await?.ok_or(NOT_FOUND)?;
    store_created_key(&mut tx, idempotency, new_id).await?;
    let details = json!({
        "name": old.name,
        "rotated_to_id": new_id,
        "grace_expires_at": grace_end.map(Timestamp),
    });
    record(app, &mut tx, by, Action::Rotate, &old, &details, now).await?;
    let key = &created.api_key;
    record(app, &mut tx, by, Action::Create, key, &describe(key), now).await?;
    Ok(UncommittedKey::new(created, tx, Some(id), Some(change_lock)))
}
