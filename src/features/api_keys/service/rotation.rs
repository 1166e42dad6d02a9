//! Puts a new key in the place of one.

use super::super::model::{CreatedApiKey, Rotation};
use super::super::repository;
use super::repeat::{refuse_repeat, remember};
use super::trail::{describe, record};
use super::turn::begin;
use super::{NOT_FOUND, commit, ended, insert, same_properties};
use crate::audit::{Action, Origin};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::http::Once;
use crate::state::AppState;
use chrono::TimeDelta;
use serde_json::json;

/// Puts a new key with the same properties, which are none stronger than the caller's, in the place
/// of key `id`, which goes on for the time of grace and then never works again. With an
/// `Idempotency-Key` that was used before it makes none, and says which one it made then.
pub async fn rotate(
    app: &AppState,
    by: &Origin,
    id: i64,
    rotation: Rotation,
    once: Option<&Once>,
) -> Result<CreatedApiKey> {
    let (mut tx, turn) = begin(app, by).await?;
    let now = app.clock.now();
    refuse_repeat(&mut tx, once, now).await?;
    let old = repository::find(&mut tx, id).await?.ok_or(NOT_FOUND)?;
    let ended = ended(&old, now).or((!old.is_active).then_some("is inactive"));
    if let Some(end) = ended {
        let sentence = format!("This API key {end} and cannot be rotated: create a new one");
        return Err(Error::Conflict(sentence.into()));
    }
    let created = insert(&mut tx, &same_properties(&old)?, Some(&old), now).await?;
    // Who rotates a key gets its successor's secret.
    turn.refuse_stronger(None, &created.api_key)?;
    let new_id = created.api_key.id;
    let grace_end = (rotation.grace > TimeDelta::zero()).then(|| now + rotation.grace);
    let old = repository::replace(&mut tx, id, new_id, now, grace_end).await?.ok_or(NOT_FOUND)?;
    remember(&mut tx, once, new_id).await?;
    let details = json!({
        "name": old.name,
        "rotated_to_id": new_id,
        "grace_expires_at": grace_end.map(Timestamp),
    });
    record(app, &mut tx, by, Action::Rotate, &old, &details, now).await?;
    let key = &created.api_key;
    record(app, &mut tx, by, Action::Create, key, &describe(key), now).await?;
    commit(app, tx, id).await?;
    Ok(created)
}
