//! SQL for messages.

use super::conversations::updated_at;
use super::size_sql::size;
use super::visibility::visible;
use crate::core::clock::{MAX_REORDERING, Timestamp};
use crate::db::{Executor, Tx, query};
use crate::features::conversations::model::{
    JsonText, Message, MessageChanges, Metadata, NewMessage, Participant,
};
use crate::http::Direction;
use crate::security::Visibility;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::Result;

/// Rows per INSERT statement, largest first. A fixed set of sizes keeps the number of distinct
/// statements small, because the databases cache each one.
const ROWS: [usize; 3] = [256, 16, 1];
/// Approximate bytes of messages read per statement for a streamed response.
const PART_BYTES: i64 = 256 * 1024;

/// A stored message with its author. `T` is `String` for rows, and `&RawValue` for JSON produced by
/// the database.
#[derive(Deserialize, sqlx::FromRow)]
pub struct MessageRow<T> {
    id: i64,
    conversation_id: i64,
    seq: i64,
    role: T,
    content: T,
    user_id: Option<i64>,
    username: Option<T>,
    email: Option<T>,
    metadata: Option<String>,
    created_at: Timestamp,
    edited_at: Option<Timestamp>,
    deleted_at: Option<Timestamp>,
    version: i64,
}

impl<T> MessageRow<T> {
    /// The message as shown to a caller with this `visibility`.
    pub fn visible_to<'t>(self, visibility: Visibility) -> Message<'t>
    where
        T: Into<JsonText<'t>>,
    {
        let user = match (self.user_id, self.username, self.email) {
            (Some(id), Some(name), Some(email)) => {
                Some(Participant::visible_to(visibility, id, name, email))
            }
            _ => None,
        };
        Message {
            id: self.id,
            conversation_id: self.conversation_id,
            seq: self.seq,
            role: self.role.into(),
            content: self.content.into(),
            user_id: self.user_id,
            user,
            metadata: Metadata::shown(self.metadata),
            created_at: self.created_at,
            edited_at: self.edited_at,
            deleted_at: self.deleted_at,
            version: self.version,
        }
    }
}

/// The columns of [`MessageRow`], of `messages m` and `users u`.
macro_rules! message_columns {
    () => {
        "m.id, m.conversation_id, m.seq, m.role, m.content, m.user_id, u.username, u.email, \
         m.metadata, m.created_at, m.edited_at, m.deleted_at, m.version"
    };
}
pub(crate) use message_columns;

/// The messages of conversation `id` with `seq` from `from` to `to`, in order. Empty if the
/// conversation is not visible.
pub async fn numbered(
    on: impl Into<Executor<'_>>,
    id: i64,
    visibility: Visibility,
    from: i64,
    to: i64,
) -> Result<Vec<Message<'static>>> {
    const SQL: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m LEFT JOIN users u ON u.id = m.user_id \
         WHERE m.conversation_id = $1 AND m.seq >= $2 AND m.seq <= $3 AND ",
        visible!("$1", "$4"),
        " ORDER BY m.seq"
    );
    let statement = query(on, SQL).bind(id).bind(from).bind(to).bind(visibility.user_id());
    let rows: Vec<MessageRow<String>> = statement.all().await?;
    Ok(rows.into_iter().map(|row| row.visible_to(visibility)).collect())
}

/// The first messages of conversation `id` with `seq` from `from` to `to`, in `order`, until their
/// size reaches [`PART_BYTES`]. Empty if the conversation is not visible.
pub async fn part(
    on: impl Into<Executor<'_>>,
    id: i64,
    visibility: Visibility,
    from: i64,
    to: i64,
    order: Direction,
) -> Result<Vec<Message<'static>>> {
    const TOTALS: &str = concat!(
        "WITH part AS MATERIALIZED (SELECT m.id AS id, SUM(",
        size!(),
        ") OVER (ORDER BY m.seq"
    );
    const BEFORE: &str = concat!(
        ") - (",
        size!(),
        ") AS before FROM messages m WHERE m.conversation_id = $1 AND m.seq >= $2 AND m.seq <= $3) \
         SELECT ",
        message_columns!(),
        " FROM part CROSS JOIN messages m LEFT JOIN users u ON u.id = m.user_id \
         WHERE m.id = part.id AND part.before < $4 AND ",
        visible!("$1", "$5"),
        " ORDER BY m.seq"
    );
    let direction = match order {
        Direction::Ascending => "",
        Direction::Descending => " DESC",
    };
    let statement = query(on, TOTALS).push(direction).push(BEFORE).push(direction);
    let statement =
        statement.bind(id).bind(from).bind(to).bind(PART_BYTES).bind(visibility.user_id());
    let rows: Vec<MessageRow<String>> = statement.all().await?;
    Ok(rows.into_iter().map(|row| row.visible_to(visibility)).collect())
}

/// Message `message_id` of conversation `id`, if the conversation is visible.
pub async fn find(
    on: impl Into<Executor<'_>>,
    id: i64,
    message_id: i64,
    visibility: Visibility,
) -> Result<Option<Message<'static>>> {
    const SQL: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m LEFT JOIN users u ON u.id = m.user_id \
         WHERE m.id = $1 AND m.conversation_id = $2 AND ",
        visible!("m.conversation_id", "$3")
    );
    let statement = query(on, SQL).bind(message_id).bind(id).bind(visibility.user_id());
    let row: Option<MessageRow<String>> = statement.optional().await?;
    Ok(row.map(|row| row.visible_to(visibility)))
}

/// SQL that updates conversation `$1` for `$4` new messages at time `$2`; `$3` is as in
/// `updated_at!`. In SET, the right-hand sides use the old values.
macro_rules! numbered_next {
    () => {
        concat!(
            "UPDATE conversations SET last_seq = last_seq + $4, updated_at = ",
            updated_at!(),
            ", active_at = ",
            updated_at!(),
            " WHERE id = $1 AND retired_at IS NULL"
        )
    };
}

/// Reserves `seq` for the next `count` messages of conversation `id`. This locks the conversation
/// until `tx` ends, so the order of `seq` is the order of commits. Returns the last `seq` and the
/// messages' time: `now`, or the time of the last change if that is at most [`MAX_REORDERING`]
/// later. A clock that was set back can give a message an earlier time than the previous one: only
/// `seq` is the order. `None` if the conversation does not exist or is not visible.
pub async fn next_seqs(
    tx: &mut Tx,
    id: i64,
    visibility: Visibility,
    count: i64,
    now: DateTime<Utc>,
) -> Result<Option<(i64, Timestamp)>> {
    const SQL: &str = concat!(
        numbered_next!(),
        " AND ",
        visible!("conversations.id", "$5"),
        " RETURNING last_seq, updated_at"
    );
    let statement = query(tx, SQL).bind(id).bind(now).bind(now + MAX_REORDERING).bind(count);
    statement.bind(visibility.user_id()).optional().await
}

/// Inserts `new`, numbered from `first_seq`. Returns the ids in the same order.
pub async fn insert(
    tx: &mut Tx,
    conversation_id: i64,
    first_seq: i64,
    new: &[NewMessage],
    created_at: Timestamp,
) -> Result<Vec<i64>> {
    const SQL: &str = "INSERT INTO messages \
        (conversation_id, seq, role, content, user_id, metadata, created_at) VALUES ";
    let mut ids = Vec::with_capacity(new.len());
    let mut seq = first_seq;
    let mut rest = new;
    while let Some((rows, later)) = ROWS.iter().find_map(|size| rest.split_at_checked(*size)) {
        rest = later;
        let mut statement = query(&mut *tx, SQL);
        for (index, new) in rows.iter().enumerate() {
            statement = statement.push(if index == 0 { "(" } else { ", (" });
            statement = statement.push_bind(conversation_id).push(", ").push_bind(seq);
            statement = statement.push(", ").push_bind(&*new.role);
            statement = statement.push(", ").push_bind(&*new.content);
            statement = statement.push(", ").push_bind(new.user_id);
            let metadata = new.metadata.as_ref().map(Metadata::as_str);
            statement = statement.push(", ").push_bind(metadata);
            statement = statement.push(", ").push_bind(created_at.0).push(")");
            seq += 1;
        }
        let mut rows: Vec<(i64, i64)> = statement.push(" RETURNING seq, id").all().await?;
        // Neither database guarantees the order of RETURNING.
        rows.sort_unstable();
        ids.extend(rows.into_iter().map(|(_, id)| id));
    }
    Ok(ids)
}

/// Appends a message without an author, for a caller who sees all conversations: [`next_seqs`] and
/// [`insert`] in one round trip. Returns `seq`, id and time; `None` if there is no such
/// conversation.
pub async fn append_one(
    tx: &mut Tx,
    id: i64,
    new: &NewMessage,
    now: DateTime<Utc>,
) -> Result<Option<(i64, i64, Timestamp)>> {
    const SQLITE: &str = concat!(
        numbered_next!(),
        "; INSERT INTO messages (conversation_id, seq, role, content, metadata, created_at) \
         SELECT id, last_seq, $5, $6, $7, updated_at FROM conversations \
         WHERE id = $1 AND retired_at IS NULL RETURNING seq, id, created_at"
    );
    const POSTGRES: &str = concat!(
        "WITH conversation AS (",
        numbered_next!(),
        " RETURNING id, last_seq, updated_at) \
         INSERT INTO messages (conversation_id, seq, role, content, metadata, created_at) \
         SELECT id, last_seq, $5, $6, $7, updated_at FROM conversation \
         RETURNING seq, id, created_at"
    );
    let sql = if tx.is_sqlite() { SQLITE } else { POSTGRES };
    let statement = query(tx, sql).bind(id).bind(now).bind(now + MAX_REORDERING).bind(1_i64);
    let statement = statement.bind(&*new.role).bind(&*new.content);
    statement.bind(new.metadata.as_ref().map(Metadata::as_str)).optional().await
}

/// Applies `changes` to message `id`, increments its version and sets `edited_at` to `now`.
pub async fn update(
    tx: &mut Tx,
    id: i64,
    changes: &MessageChanges,
    now: DateTime<Utc>,
) -> Result<()> {
    const SQL: &str = "UPDATE messages SET version = version + 1, edited_at = ";
    const EMPTY: &str = "UPDATE messages SET content = '' WHERE id = $1";
    const WRITE_INDEX: &str = "INSERT INTO message_search (message_search) VALUES ('flush')";
    // Works around an FTS5 bug (SQLite 3.51.3 and earlier, at least): with secure-delete, if one
    // pending batch deletes a row and inserts it again with a term that occurs 128 times or more,
    // FTS5 reads the wrong byte of a two-byte varint and never removes the old entry. The flush
    // separates the deletion from the insertion.
    if tx.is_sqlite() && changes.content.is_some() {
        query(&mut *tx, EMPTY).bind(id).execute().await?;
        query(&mut *tx, WRITE_INDEX).execute().await?;
    }
    let mut statement = query(tx, SQL).push_bind(now);
    if let Some(content) = &changes.content {
        statement = statement.push(", content = ").push_bind(&**content);
    }
    if let Some(metadata) = &changes.metadata {
        let metadata = metadata.as_ref().map(Metadata::as_str);
        statement = statement.push(", metadata = ").push_bind(metadata);
    }
    statement.push(" WHERE id = ").push_bind(id).execute().await.map(drop)
}

/// Soft-deletes message `id`: erases content and metadata, keeps the row.
pub async fn erase(tx: &mut Tx, id: i64, now: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "UPDATE messages SET content = '', metadata = NULL, deleted_at = $2, \
        version = version + 1 WHERE id = $1";
    query(tx, SQL).bind(id).bind(now).execute().await.map(drop)
}
