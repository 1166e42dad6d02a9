//! SQL for notices that wait, and nothing else.

use crate::db::{On, Tx, query};
use chrono::{DateTime, Utc};
use sqlx::Result;

/// A notice that waits.
#[derive(sqlx::FromRow)]
pub struct Notice {
    pub id: i64,
    pub message_id: String,
    pub event: String,
    /// Sent and signed byte for byte as it is stored.
    pub payload: String,
    pub created_at: DateTime<Utc>,
    /// How often it was sent in vain.
    pub attempts: i64,
}

pub async fn insert(
    tx: &mut Tx,
    message_id: &str,
    event: &str,
    payload: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    const SQL: &str = "INSERT INTO webhook_outbox \
         (message_id, event, payload, created_at, next_attempt_at) VALUES ($1, $2, $3, $4, $4)";
    query(tx, SQL).bind(message_id).bind(event).bind(payload).bind(now).execute().await?;
    Ok(())
}

/// How many wait, and when the first of them is due.
pub async fn waiting(on: impl Into<On<'_>>) -> Result<(i64, Option<DateTime<Utc>>)> {
    const SQL: &str = "SELECT CAST(COUNT(*) AS BIGINT), MIN(next_attempt_at) \
                       FROM webhook_outbox WHERE gave_up_at IS NULL";
    query(on, SQL).one().await
}

/// The first that is due and comes after the one with the id `after`.
pub async fn next_due(
    on: impl Into<On<'_>>,
    now: DateTime<Utc>,
    after: i64,
) -> Result<Option<Notice>> {
    const SQL: &str = "SELECT id, message_id, event, payload, created_at, attempts \
         FROM webhook_outbox WHERE gave_up_at IS NULL AND next_attempt_at <= $1 AND id > $2 \
         ORDER BY id LIMIT 1";
    query(on, SQL).bind(now).bind(after).optional().await
}

/// It arrived.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<()> {
    query(tx, "DELETE FROM webhook_outbox WHERE id = $1").bind(id).execute().await?;
    Ok(())
}

/// It did not arrive, and is sent again.
pub async fn put_off(tx: &mut Tx, id: i64, error: &str, until: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "UPDATE webhook_outbox \
         SET attempts = attempts + 1, last_error = $2, next_attempt_at = $3 WHERE id = $1";
    query(tx, SQL).bind(id).bind(error).bind(until).execute().await?;
    Ok(())
}

/// It did not arrive, and is not sent again.
pub async fn give_up(tx: &mut Tx, id: i64, error: &str, now: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "UPDATE webhook_outbox \
         SET attempts = attempts + 1, last_error = $2, gave_up_at = $3 WHERE id = $1";
    query(tx, SQL).bind(id).bind(error).bind(now).execute().await?;
    Ok(())
}

/// Forgets those that were given up before `end`.
pub async fn prune(tx: &mut Tx, end: DateTime<Utc>) -> Result<u64> {
    query(tx, "DELETE FROM webhook_outbox WHERE gave_up_at < $1").bind(end).execute().await
}
