//! Requests that are sent again: a secret is told once, so the second makes nothing.

use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::http::Once;
use chrono::{DateTime, Utc};

/// Fails with 409 when this request made a key before: its secret was told then, and is not kept.
pub(super) async fn refuse_repeat(
    tx: &mut Tx,
    once: Option<&Once>,
    now: DateTime<Utc>,
) -> Result<()> {
    let Some(once) = once else { return Ok(()) };
    let Some(earlier) = once.claim(tx, now).await? else { return Ok(()) };
    let sentence = format!(
        "This request made API key {} before, whose secret is not kept: rotate that key for a \
         fresh one",
        earlier.id
    );
    Err(Error::Conflict(sentence.into()))
}

/// Remembers that this request made key `id`.
pub(super) async fn remember(tx: &mut Tx, once: Option<&Once>, id: i64) -> sqlx::Result<()> {
    match once {
        Some(once) => once.made(tx, id, 1).await,
        None => Ok(()),
    }
}
