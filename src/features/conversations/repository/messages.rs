//! SQL for messages.

use super::{Selection, select, within_reach};
use crate::core::clock::Timestamp;
use crate::db::{On, Tx, query};
use crate::features::conversations::model::{Message, Metadata, NewMessage, Participant};
use crate::security::Reach;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// A message as it is stored, and who said it.
#[derive(sqlx::FromRow)]
pub struct MessageRow {
    id: i64,
    conversation_id: i64,
    seq: i64,
    role: String,
    content: String,
    user_id: Option<i64>,
    username: Option<String>,
    email: Option<String>,
    metadata: Option<String>,
    created_at: Timestamp,
    edited_at: Option<Timestamp>,
    deleted_at: Option<Timestamp>,
    version: i64,
}

impl MessageRow {
    /// The message as somebody with this `reach` sees it.
    pub fn seen_by(self, reach: Reach) -> Message {
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
            role: self.role,
            content: self.content,
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

/// The newest `limit` messages of each, by conversation and then in their order; fewer where the
/// contents of all together would take more than `bytes`.
pub async fn newest(
    on: impl Into<On<'_>>,
    selection: Selection,
    reach: Reach,
    limit: i64,
    bytes: usize,
) -> Result<Vec<Message>> {
    // 320 stands for the rest of a message in JSON.
    const SIZES: &str = "SELECT m.id AS id, SUM(octet_length(m.content) + \
         COALESCE(octet_length(m.metadata), 0) + 320) OVER (ORDER BY c.id, m.seq DESC) AS total \
         FROM c JOIN messages m ON m.conversation_id = c.id AND m.seq > c.last_seq - ";
    const FITTING: &str = ") AS size JOIN messages m ON m.id = size.id \
         LEFT JOIN users u ON u.id = m.user_id WHERE size.total <= ";
    let statement = select(on, selection)
        .push(concat!("SELECT ", message_columns!(), " FROM ("))
        .push(SIZES)
        .push_bind(limit)
        .push(FITTING)
        .push_bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .push(" ORDER BY m.conversation_id, m.seq");
    let rows: Vec<MessageRow> = statement.all().await?;
    Ok(rows.into_iter().map(|row| row.seen_by(reach)).collect())
}

/// The messages of conversation `id` whose numbers are beyond `after`, in their order.
pub async fn list(
    on: impl Into<On<'_>>,
    id: i64,
    reach: Reach,
    after: i64,
    limit: i64,
) -> Result<Vec<Message>> {
    const SQL: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m LEFT JOIN users u ON u.id = m.user_id \
         WHERE m.conversation_id = $1 AND m.seq > $2 ORDER BY m.seq LIMIT $3"
    );
    let rows: Vec<MessageRow> = query(on, SQL).bind(id).bind(after).bind(limit).all().await?;
    Ok(rows.into_iter().map(|row| row.seen_by(reach)).collect())
}

/// Message `message_id` of conversation `id`, if that is within `reach`.
pub async fn find(
    on: impl Into<On<'_>>,
    id: i64,
    message_id: i64,
    reach: Reach,
) -> Result<Option<Message>> {
    const SQL: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m LEFT JOIN users u ON u.id = m.user_id \
         WHERE m.id = $1 AND m.conversation_id = $2 AND ",
        within_reach!("m.conversation_id", "$3")
    );
    let statement = query(on, SQL).bind(message_id).bind(id).bind(reach.user_id());
    let row: Option<MessageRow> = statement.optional().await?;
    Ok(row.map(|row| row.seen_by(reach)))
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
    // On the right of SET stand the values from before.
    const SQL: &str = concat!(
        "UPDATE conversations SET last_seq = last_seq + $2, \
         updated_at = CASE WHEN updated_at < $3 THEN $3 ELSE updated_at END, \
         last_message_at = CASE WHEN updated_at < $3 THEN $3 ELSE updated_at END \
         WHERE id = $1 AND retired_at IS NULL AND ",
        within_reach!("conversations.id", "$4"),
        " RETURNING last_seq, updated_at"
    );
    query(tx, SQL).bind(id).bind(count).bind(now).bind(reach.user_id()).optional().await
}

/// The new message's id.
pub async fn insert(
    tx: &mut Tx,
    conversation_id: i64,
    seq: i64,
    new: &NewMessage,
    created_at: Timestamp,
) -> Result<i64> {
    const SQL: &str = "INSERT INTO messages \
        (conversation_id, seq, role, content, user_id, metadata, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id";
    let insert = query(tx, SQL)
        .bind(conversation_id)
        .bind(seq)
        .bind(&*new.role)
        .bind(&*new.content)
        .bind(new.user_id)
        .bind(new.metadata.as_ref().map(Metadata::as_str))
        .bind(created_at.0);
    let (id,): (i64,) = insert.one().await?;
    Ok(id)
}
