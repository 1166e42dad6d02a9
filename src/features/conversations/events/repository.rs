//! SQL for events.

use crate::db::{Executor, Tx, query};
use crate::features::conversations::model::Message;
use crate::features::conversations::repository::messages::{MessageRow, message_columns};
use crate::features::conversations::repository::visible;
use crate::security::Visibility;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// A stored event with its data, except the message.
#[derive(sqlx::FromRow)]
pub struct EventRow {
    pub id: i64,
    pub kind: String,
    pub message_id: Option<i64>,
    pub user_id: Option<i64>,
    pub username: Option<String>,
    pub title: Option<String>,
    pub metadata: Option<String>,
    /// Approximate size in bytes.
    pub bytes: i64,
}

/// The range of stored events of a conversation.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct EventRange {
    /// Id of the newest event, or 0.
    pub newest: i64,
    /// Id of the last event that was removed, or 0.
    pub removed_to: i64,
}

/// The range of stored events of conversation `id`. `None` if the conversation does not exist or is
/// not visible.
pub async fn event_range(
    on: impl Into<Executor<'_>>,
    id: i64,
    visibility: Visibility,
) -> Result<Option<EventRange>> {
    const SQL: &str = concat!(
        "SELECT COALESCE((SELECT MAX(e.id) FROM conversation_events e \
         WHERE e.conversation_id = c.id), c.events_removed_to) AS newest, \
         c.events_removed_to AS removed_to FROM conversations c WHERE c.id = $1 AND ",
        visible!("c.id", "$2")
    );
    query(on, SQL).bind(id).bind(visibility.user_id()).optional().await
}

/// The conversation of the oldest event, if the event is older than `before`.
pub async fn with_oldest(
    on: impl Into<Executor<'_>>,
    before: DateTime<Utc>,
) -> Result<Option<i64>> {
    const SQL: &str = "SELECT conversation_id FROM conversation_events WHERE created_at < $1 \
                       ORDER BY created_at LIMIT 1";
    let row: Option<(i64,)> = query(on, SQL).bind(before).optional().await?;
    Ok(row.map(|(id,)| id))
}

/// Removes the first `limit` events of conversation `id` that are older than `before`. Returns the
/// number removed. The times of events need not increase, as a clock can be set back: an event that
/// is kept may have a smaller id than `events_removed_to`.
pub async fn forget(tx: &mut Tx, id: i64, before: DateTime<Utc>, limit: i64) -> Result<u64> {
    const LAST: &str = "SELECT MAX(f.id) FROM (SELECT id FROM conversation_events \
        WHERE conversation_id = $1 AND created_at < $2 ORDER BY id LIMIT $3) f";
    const MARK: &str = "UPDATE conversations SET events_removed_to = $2 \
        WHERE id = $1 AND events_removed_to < $2";
    const DELETE: &str = "DELETE FROM conversation_events \
        WHERE conversation_id = $1 AND created_at < $2 AND id <= $3";
    let statement = query(&mut *tx, LAST).bind(id).bind(before).bind(limit);
    let (last,): (Option<i64>,) = statement.one().await?;
    let Some(last) = last else { return Ok(0) };
    query(&mut *tx, MARK).bind(id).bind(last).execute().await?;
    query(tx, DELETE).bind(id).bind(before).bind(last).execute().await
}

/// The first `limit` events of conversation `id` after event `last`. `None` if the conversation
/// does not exist or is not visible.
pub async fn after(
    on: impl Into<Executor<'_>>,
    id: i64,
    visibility: Visibility,
    last: i64,
    limit: usize,
) -> Result<Option<Vec<EventRow>>> {
    // A row without an event means that the conversation exists. 320 is the size of the other
    // fields of a message in JSON.
    const SQL: &str = concat!(
        "SELECT COALESCE(e.id, 0) AS id, COALESCE(e.kind, '') AS kind, e.message_id, e.user_id, \
         u.username, CASE WHEN e.kind = 'conversation.updated' THEN c.title END AS title, \
         CASE WHEN e.kind = 'conversation.updated' THEN c.metadata END AS metadata, \
         CAST(320 + COALESCE(octet_length(m.content), 0) + \
         COALESCE(octet_length(m.metadata), 0) AS BIGINT) AS bytes \
         FROM conversations c LEFT JOIN (SELECT id, kind, message_id, user_id \
         FROM conversation_events WHERE conversation_id = $1 AND id > $3 ORDER BY id LIMIT $4) e \
         ON TRUE LEFT JOIN messages m ON m.id = e.message_id LEFT JOIN users u ON u.id = e.user_id \
         WHERE c.id = $1 AND ",
        visible!("c.id", "$2"),
        " ORDER BY e.id"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let statement = query(on, SQL).bind(id).bind(visibility.user_id()).bind(last).bind(limit);
    let rows: Vec<EventRow> = statement.all().await?;
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(Some(rows.into_iter().filter(|row| row.id > 0).collect()))
}

/// The current state of the messages `ids` of conversation `id`. Empty if the conversation is not
/// visible.
pub async fn messages(
    on: impl Into<Executor<'_>>,
    id: i64,
    visibility: Visibility,
    ids: &[i64],
) -> Result<Vec<Message<'static>>> {
    const SQL: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m LEFT JOIN users u ON u.id = m.user_id WHERE m.conversation_id = $1 AND ",
        visible!("m.conversation_id", "$2"),
        " AND m.id IN ("
    );
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let mut statement = query(on, SQL).bind(id).bind(visibility.user_id());
    for (index, message_id) in ids.iter().enumerate() {
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(*message_id);
    }
    let rows: Vec<MessageRow<String>> = statement.push(")").all().await?;
    Ok(rows.into_iter().map(|row| row.visible_to(visibility)).collect())
}
