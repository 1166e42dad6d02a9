//! SQL for messages.

use super::weight::size;
use super::within_reach;
use crate::core::clock::Timestamp;
use crate::db::{On, Tx, query};
use crate::features::conversations::model::{
    JsonText, Message, MessageChanges, Metadata, NewMessage, Participant,
};
use crate::http::Direction;
use crate::security::Reach;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::Result;

/// Messages written in one statement, and in smaller ones what is left: few texts of statements, as
/// the databases keep each.
const ROWS: [usize; 3] = [256, 16, 1];
/// Bytes of messages that are read at once for an answer that is written while it is read.
const PART_BYTES: i64 = 256 * 1024;

/// A message as it is stored, and who said it. Its texts are `String`s in rows, and in JSON that the
/// database wrote `&RawValue`s.
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
    /// The message as somebody with this `reach` sees it.
    pub fn seen_by<'t>(self, reach: Reach) -> Message<'t>
    where
        T: Into<JsonText<'t>>,
    {
        let user = match (self.user_id, self.username, self.email) {
            (Some(id), Some(name), Some(email)) => {
                Some(Participant::seen_by(reach, id, name, email))
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
pub(in crate::features::conversations) use message_columns;

/// The messages of conversation `id` with the numbers `from` to `to`, in their order; none if it is
/// not within `reach`.
pub async fn numbered(
    on: impl Into<On<'_>>,
    id: i64,
    reach: Reach,
    from: i64,
    to: i64,
) -> Result<Vec<Message<'static>>> {
    const SQL: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m LEFT JOIN users u ON u.id = m.user_id \
         WHERE m.conversation_id = $1 AND m.seq >= $2 AND m.seq <= $3 AND ",
        within_reach!("$1", "$4"),
        " ORDER BY m.seq"
    );
    let statement = query(on, SQL).bind(id).bind(from).bind(to).bind(reach.user_id());
    let rows: Vec<MessageRow<String>> = statement.all().await?;
    Ok(rows.into_iter().map(|row| row.seen_by(reach)).collect())
}

/// The first of the messages of conversation `id` with the numbers `from` to `to`, in this order, that
/// take about [`PART_BYTES`], one message more at most; none if it is not within `reach`.
pub async fn part(
    on: impl Into<On<'_>>,
    id: i64,
    reach: Reach,
    (from, to): (i64, i64),
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
        within_reach!("$1", "$5"),
        " ORDER BY m.seq"
    );
    let direction = match order {
        Direction::Ascending => "",
        Direction::Descending => " DESC",
    };
    let statement = query(on, TOTALS).push(direction).push(BEFORE).push(direction);
    let statement = statement.bind(id).bind(from).bind(to).bind(PART_BYTES).bind(reach.user_id());
    let rows: Vec<MessageRow<String>> = statement.all().await?;
    Ok(rows.into_iter().map(|row| row.seen_by(reach)).collect())
}

/// Message `message_id` of conversation `id`, if that is within `reach`.
pub async fn find(
    on: impl Into<On<'_>>,
    id: i64,
    message_id: i64,
    reach: Reach,
) -> Result<Option<Message<'static>>> {
    const SQL: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m LEFT JOIN users u ON u.id = m.user_id \
         WHERE m.id = $1 AND m.conversation_id = $2 AND ",
        within_reach!("m.conversation_id", "$3")
    );
    let statement = query(on, SQL).bind(message_id).bind(id).bind(reach.user_id());
    let row: Option<MessageRow<String>> = statement.optional().await?;
    Ok(row.map(|row| row.seen_by(reach)))
}

/// Sets what a conversation tells of its last messages, of which there are `$2` more at `$3`. On the
/// right of SET stand the values from before.
macro_rules! numbered_next {
    () => {
        "UPDATE conversations SET last_seq = last_seq + $2, \
         updated_at = CASE WHEN updated_at < $3 THEN $3 ELSE updated_at END, \
         active_at = CASE WHEN updated_at < $3 THEN $3 ELSE updated_at END \
         WHERE id = $1 AND retired_at IS NULL"
    };
}

/// Takes the numbers of the next `count` messages of conversation `id`, which is locked until `tx`
/// ends, so that numbers are in the order of the commits: the last of them, and the messages' time,
/// which is `now`, but never before that of the message before. `None` when there is no such
/// conversation within `reach`.
pub async fn next_seqs(
    tx: &mut Tx,
    id: i64,
    reach: Reach,
    count: i64,
    now: DateTime<Utc>,
) -> Result<Option<(i64, Timestamp)>> {
    const SQL: &str = concat!(
        numbered_next!(),
        " AND ",
        within_reach!("conversations.id", "$4"),
        " RETURNING last_seq, updated_at"
    );
    query(tx, SQL).bind(id).bind(count).bind(now).bind(reach.user_id()).optional().await
}

/// Appends `new`, the first of them with number `first_seq`; the ids, in their order.
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
        // In which order they come, neither database promises.
        rows.sort_unstable();
        ids.extend(rows.into_iter().map(|(_, id)| id));
    }
    Ok(ids)
}

/// Appends a message that nobody in particular says: [`next_seqs`] and [`insert`] in one walk to the
/// database, for who reaches everything. Its number, id and time.
pub async fn append_one(
    tx: &mut Tx,
    id: i64,
    new: &NewMessage,
    now: DateTime<Utc>,
) -> Result<Option<(i64, i64, Timestamp)>> {
    const SQLITE: &str = concat!(
        numbered_next!(),
        "; INSERT INTO messages (conversation_id, seq, role, content, metadata, created_at) \
         SELECT id, last_seq, $4, $5, $6, updated_at FROM conversations \
         WHERE id = $1 AND retired_at IS NULL RETURNING seq, id, created_at"
    );
    const POSTGRES: &str = concat!(
        "WITH conversation AS (",
        numbered_next!(),
        " RETURNING id, last_seq, updated_at) \
         INSERT INTO messages (conversation_id, seq, role, content, metadata, created_at) \
         SELECT id, last_seq, $4, $5, $6, updated_at FROM conversation \
         RETURNING seq, id, created_at"
    );
    let sql = if tx.is_sqlite() { SQLITE } else { POSTGRES };
    let statement = query(tx, sql).bind(id).bind(1_i64).bind(now);
    let statement = statement.bind(&*new.role).bind(&*new.content);
    statement.bind(new.metadata.as_ref().map(Metadata::as_str)).optional().await
}

/// Writes what `changes` changes of message `id`, and that it was edited at `now`.
pub async fn update(
    tx: &mut Tx,
    id: i64,
    changes: &MessageChanges,
    now: DateTime<Utc>,
) -> Result<()> {
    const SQL: &str = "UPDATE messages SET version = version + 1, edited_at = ";
    const EMPTY: &str = "UPDATE messages SET content = '' WHERE id = $1";
    const WRITE_INDEX: &str = "INSERT INTO message_search (message_search) VALUES ('flush')";
    // FTS5 gathers what it is told. Where the same row is taken out and put in again, in which a
    // term now stands 128 times or more, it misreads that (up to SQLite 3.51.3 at least: secure-delete
    // looks at the wrong byte of a number of two), and the old entry stays for ever.
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

/// Overwrites what message `id` said: its place stays.
pub async fn erase(tx: &mut Tx, id: i64, now: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "UPDATE messages SET content = '', metadata = NULL, deleted_at = $2, \
        version = version + 1 WHERE id = $1";
    query(tx, SQL).bind(id).bind(now).execute().await.map(drop)
}
