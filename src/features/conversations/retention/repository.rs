//! SQL for removing old conversations, and nothing else.

use crate::db::{On, Tx, query};
use chrono::{DateTime, Utc};
use sqlx::Result;

/// A conversation in which nothing was said for long.
#[derive(Debug, sqlx::FromRow)]
pub struct Old {
    pub id: i64,
    pub last_seq: i64,
    /// How many events it has, as far as they were counted.
    pub events: i64,
}

/// A conversation that is retired at `now` and not gone yet. One that is being taken in is retired
/// in the future, unless it comes to its end before.
pub async fn retired(on: impl Into<On<'_>>, now: DateTime<Utc>) -> Result<Option<i64>> {
    const SQL: &str = "SELECT id FROM conversations \
        WHERE retired_at IS NOT NULL AND retired_at <= $1 ORDER BY id LIMIT 1";
    let row: Option<(i64,)> = query(on, SQL).bind(now).optional().await?;
    Ok(row.map(|(id,)| id))
}

/// The conversation in which nothing was said for the longest time, since before `before`; of its
/// events one more than `count` are counted.
pub async fn oldest(
    on: impl Into<On<'_>>,
    before: DateTime<Utc>,
    count: i64,
) -> Result<Option<Old>> {
    const SQL: &str = "SELECT c.id, c.last_seq, (SELECT CAST(COUNT(*) AS BIGINT) FROM \
        (SELECT e.id FROM conversation_events e WHERE e.conversation_id = c.id LIMIT $2) AS few) \
        AS events FROM conversations c \
        WHERE c.active_at < $1 AND c.retired_at IS NULL \
        ORDER BY c.active_at, c.id LIMIT 1";
    query(on, SQL).bind(before).bind(count + 1).optional().await
}

/// Removes conversation `id` with all that is in it, if nothing was said in it since `before`: how
/// many messages that were.
pub async fn delete_old(tx: &mut Tx, id: i64, before: DateTime<Utc>) -> Result<Option<i64>> {
    const SQL: &str = "DELETE FROM conversations WHERE id = $1 AND retired_at IS NULL \
        AND active_at < $2 RETURNING last_seq";
    let row: Option<(i64,)> = query(tx, SQL).bind(id).bind(before).optional().await?;
    Ok(row.map(|(messages,)| messages))
}

/// Whether nothing was said in conversation `id`, which is locked, since `before`.
pub async fn is_old(on: impl Into<On<'_>>, id: i64, before: DateTime<Utc>) -> Result<bool> {
    const SQL: &str = "SELECT id FROM conversations \
        WHERE id = $1 AND retired_at IS NULL AND active_at < $2";
    Ok(query(on, SQL).bind(id).bind(before).optional::<(i64,)>().await?.is_some())
}

/// Removes the first `limit` messages of conversation `id`: how many there were.
pub async fn delete_messages(tx: &mut Tx, id: i64, limit: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM messages WHERE id IN \
        (SELECT m.id FROM messages m WHERE m.conversation_id = $1 ORDER BY m.seq LIMIT $2)";
    query(tx, SQL).bind(id).bind(limit).execute().await
}

/// The same of its events.
pub async fn delete_events(tx: &mut Tx, id: i64, limit: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM conversation_events WHERE id IN \
        (SELECT e.id FROM conversation_events e WHERE e.conversation_id = $1 ORDER BY e.id LIMIT $2)";
    query(tx, SQL).bind(id).bind(limit).execute().await
}

/// Removes conversation `id`, which has no messages any more.
pub async fn delete_retired(tx: &mut Tx, id: i64) -> Result<()> {
    const SQL: &str = "DELETE FROM conversations WHERE id = $1 AND retired_at IS NOT NULL";
    query(tx, SQL).bind(id).execute().await.map(drop)
}
