//! SQL for the retention of conversations.

use crate::db::{Executor, Tx, query};
use chrono::{DateTime, Utc};
use sqlx::Result;

/// A conversation without recent messages.
#[derive(Debug, sqlx::FromRow)]
pub struct InactiveConversation {
    pub id: i64,
    pub last_seq: i64,
    /// Number of events, up to the limit of the count.
    pub events: i64,
}

/// A conversation that is retired at `now` but not removed yet. A conversation that is being
/// imported has a `retired_at` in the future, which a complete import clears.
pub async fn retired(on: impl Into<Executor<'_>>, now: DateTime<Utc>) -> Result<Option<i64>> {
    const SQL: &str = "SELECT id FROM conversations \
        WHERE retired_at IS NOT NULL AND retired_at <= $1 ORDER BY id LIMIT 1";
    let row: Option<(i64,)> = query(on, SQL).bind(now).optional().await?;
    Ok(row.map(|(id,)| id))
}

/// The least recently active conversation, if its last activity was before `before`. At most
/// `count + 1` of its events are counted.
pub async fn oldest(
    on: impl Into<Executor<'_>>,
    before: DateTime<Utc>,
    count: i64,
) -> Result<Option<InactiveConversation>> {
    const SQL: &str = "SELECT c.id, c.last_seq, (SELECT CAST(COUNT(*) AS BIGINT) FROM \
        (SELECT e.id FROM conversation_events e WHERE e.conversation_id = c.id LIMIT $2) AS few) \
        AS events FROM conversations c \
        WHERE c.active_at < $1 AND c.retired_at IS NULL \
        ORDER BY c.active_at, c.id LIMIT 1";
    query(on, SQL).bind(before).bind(count + 1).optional().await
}

/// Removes conversation `id` with all its rows, if its last activity was before `before`. Returns
/// the number of messages removed; `None` if the conversation was not removed.
pub async fn delete_old(tx: &mut Tx, id: i64, before: DateTime<Utc>) -> Result<Option<i64>> {
    const SQL: &str = "DELETE FROM conversations WHERE id = $1 AND retired_at IS NULL \
        AND active_at < $2 RETURNING last_seq";
    let row: Option<(i64,)> = query(tx, SQL).bind(id).bind(before).optional().await?;
    Ok(row.map(|(messages,)| messages))
}

/// Returns whether the last activity in conversation `id`, which is locked, was before `before`.
pub async fn is_old(on: impl Into<Executor<'_>>, id: i64, before: DateTime<Utc>) -> Result<bool> {
    const SQL: &str = "SELECT id FROM conversations \
        WHERE id = $1 AND retired_at IS NULL AND active_at < $2";
    Ok(query(on, SQL).bind(id).bind(before).optional::<(i64,)>().await?.is_some())
}

/// Removes the first `limit` messages of conversation `id`. Returns the number removed.
pub async fn delete_messages(tx: &mut Tx, id: i64, limit: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM messages WHERE id IN \
        (SELECT m.id FROM messages m WHERE m.conversation_id = $1 ORDER BY m.seq LIMIT $2)";
    query(tx, SQL).bind(id).bind(limit).execute().await
}

/// Removes the first `limit` events of conversation `id`. Returns the number removed.
pub async fn delete_events(tx: &mut Tx, id: i64, limit: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM conversation_events WHERE id IN \
        (SELECT e.id FROM conversation_events e WHERE e.conversation_id = $1 ORDER BY e.id LIMIT $2)";
    query(tx, SQL).bind(id).bind(limit).execute().await
}

/// Removes the retired conversation `id`, which has no messages left.
pub async fn delete_retired(tx: &mut Tx, id: i64) -> Result<()> {
    const SQL: &str = "DELETE FROM conversations WHERE id = $1 AND retired_at IS NOT NULL";
    query(tx, SQL).bind(id).execute().await.map(drop)
}
