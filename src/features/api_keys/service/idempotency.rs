//! Repeated requests with an `Idempotency-Key`. The first response cannot be replayed, because the
//! secret is not stored: a repeat fails with 409.

use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::http::IdempotencyRecord;
use chrono::{DateTime, Utc};

/// Fails with 409 if this request already created a key.
pub(super) async fn refuse_replay(
    tx: &mut Tx,
    idempotency: Option<&IdempotencyRecord>,
    now: DateTime<Utc>,
) -> Result<()> {
    let Some(idempotency) = idempotency else { return Ok(()) };
    let Some(earlier) = idempotency.claim(tx, now).await? else { return Ok(()) };
    let sentence = format!(
        "This request already created API key {}, whose secret is not stored: rotate the key to \
         get a new one",
        earlier.id
    );
    Err(Error::Conflict(sentence.into()))
}

/// Stores that this request created key `id`.
pub(super) async fn store_created_key(
    tx: &mut Tx,
    idempotency: Option<&IdempotencyRecord>,
    id: i64,
) -> sqlx::Result<()> {
    match idempotency {
        Some(idempotency) => idempotency.store_result(tx, id, 1).await,
        None => Ok(()),
    }
}
