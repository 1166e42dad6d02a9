//! SQL for the webhook outbox.

use crate::core::clock::Timestamp;
use crate::db::{Executor, Tx, query};
use chrono::{DateTime, Utc};
use sqlx::Result;

/// An undelivered webhook event.
#[derive(sqlx::FromRow)]
pub struct WebhookEvent {
    pub id: i64,
    pub message_id: String,
    pub event: String,
    /// Signed and sent byte for byte as stored.
    pub payload: String,
    #[sqlx(try_from = "Timestamp")]
    pub created_at: DateTime<Utc>,
    /// Number of failed attempts.
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

/// The number of undelivered events, and the earliest and the latest time of a next attempt.
pub async fn waiting(
    on: impl Into<Executor<'_>>,
) -> Result<(i64, Option<Timestamp>, Option<Timestamp>)> {
    const SQL: &str = "SELECT CAST(COUNT(*) AS BIGINT), MIN(next_attempt_at), \
                       MAX(next_attempt_at) FROM webhook_outbox WHERE gave_up_at IS NULL";
    query(on, SQL).one().await
}

/// The first due event with an id greater than `after`. An event with an attempt later than
/// `latest` is due as well: a clock that was ahead scheduled it.
pub async fn next_due(
    on: impl Into<Executor<'_>>,
    now: DateTime<Utc>,
    latest: DateTime<Utc>,
    after: i64,
) -> Result<Option<WebhookEvent>> {
    const SQL: &str = "SELECT id, message_id, event, payload, created_at, attempts \
         FROM webhook_outbox WHERE gave_up_at IS NULL \
         AND (next_attempt_at <= $1 OR next_attempt_at > $2) AND id > $3 ORDER BY id LIMIT 1";
    query(on, SQL).bind(now).bind(latest).bind(after).optional().await
}

/// Deletes a delivered event.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<()> {
    query(tx, "DELETE FROM webhook_outbox WHERE id = $1").bind(id).execute().await?;
    Ok(())
}

/// Stores a failed attempt and the time of the next one.
pub async fn schedule_retry(tx: &mut Tx, id: i64, error: &str, until: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "UPDATE webhook_outbox \
         SET attempts = attempts + 1, last_error = $2, next_attempt_at = $3 WHERE id = $1";
    query(tx, SQL).bind(id).bind(error).bind(until).execute().await?;
    Ok(())
}

/// Stores the last failed attempt and marks the event as undeliverable.
pub async fn give_up(tx: &mut Tx, id: i64, error: &str, now: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "UPDATE webhook_outbox \
         SET attempts = attempts + 1, last_error = $2, gave_up_at = $3 WHERE id = $1";
    query(tx, SQL).bind(id).bind(error).bind(now).execute().await?;
    Ok(())
}

/// Deletes events that were marked as undeliverable before `end`. Returns how many.
pub async fn prune(tx: &mut Tx, end: DateTime<Utc>) -> Result<u64> {
    query(tx, "DELETE FROM webhook_outbox WHERE gave_up_at < $1").bind(end).execute().await
}
