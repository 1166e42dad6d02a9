//! Requests that are sent again: a secret is told once, so the second makes nothing.

use crate::audit::Origin;
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::http::IdempotencyKey;
use chrono::{DateTime, Utc};

/// Fails with 409 when this request made a key before: its secret was told then, and is not kept.
pub(super) async fn refuse_repeat(
    tx: &mut Tx,
    by: &Origin,
    once: Option<&IdempotencyKey>,
    now: DateTime<Utc>,
) -> Result<()> {
    let Some((once, credential)) = once.zip(credential(by)) else { return Ok(()) };
    let Some(id) = once.earlier(tx, &credential, now).await? else { return Ok(()) };
    let sentence = format!(
        "This request made API key {id} before, whose secret is not kept: rotate that key for a \
         fresh one"
    );
    Err(Error::Conflict(sentence.into()))
}

/// Remembers that this request made key `id`.
pub(super) async fn remember(
    tx: &mut Tx,
    by: &Origin,
    once: Option<&IdempotencyKey>,
    id: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    match once.zip(credential(by)) {
        Some((once, credential)) => once.remember(tx, &credential, id, now).await,
        None => Ok(()),
    }
}

/// Whose `Idempotency-Key`s are told apart from others'.
fn credential(by: &Origin) -> Option<String> {
    by.key_id().map(|id| format!("key:{id}"))
}
