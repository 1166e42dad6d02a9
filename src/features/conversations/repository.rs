//! SQL for conversations, and nothing else.

use super::model::{Message, NewMessage, Participant};
use crate::core::clock::Timestamp;
use crate::db::{On, Query, Tx, query};
use crate::http::Page;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// Which conversations to read.
#[derive(Clone, Copy, Debug)]
pub enum Selection {
    All(Page),
    OfUser(i64, Page),
    One(i64),
}

/// A conversation as it is stored. Messages are numbered without gaps and never removed one by
/// one, so the number of the newest is how many there are.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ConversationRow {
    pub id: i64,
    pub title: Option<String>,
    pub last_seq: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct MessageRow {
    id: i64,
    conversation_id: i64,
    role: String,
    content: String,
    user_id: Option<i64>,
    username: Option<String>,
    email: Option<String>,
    created_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct ParticipantRow {
    conversation_id: i64,
    id: i64,
    username: String,
    email: String,
}

impl From<MessageRow> for Message {
    fn from(row: MessageRow) -> Self {
        let user = match (row.user_id, row.username, row.email) {
            (Some(id), Some(username), Some(email)) => Some(Participant { id, username, email }),
            _ => None,
        };
        Self {
            id: row.id,
            conversation_id: row.conversation_id,
            role: row.role,
            content: row.content,
            user_id: row.user_id,
            user,
            created_at: row.created_at,
        }
    }
}

/// The columns of [`MessageRow`], of `messages m` and `users u`.
macro_rules! message_columns {
    () => {
        "m.id, m.conversation_id, m.role, m.content, m.user_id, u.username, u.email, m.created_at"
    };
}

/// The beginning of a statement that reads of the conversations selected, which it calls `page`.
fn select<'c>(on: impl Into<On<'c>>, selection: Selection) -> Query<'c> {
    const ALL: &str = "WITH page AS (SELECT id, title, last_seq, created_at, updated_at \
         FROM conversations ORDER BY id LIMIT $1 OFFSET $2) ";
    const OF_USER: &str = "WITH page AS (SELECT c.id, c.title, c.last_seq, c.created_at, c.updated_at \
         FROM participants p JOIN conversations c ON c.id = p.conversation_id \
         WHERE p.user_id = $1 ORDER BY p.conversation_id LIMIT $2 OFFSET $3) ";
    const ONE: &str = "WITH page AS (SELECT id, title, last_seq, created_at, updated_at \
         FROM conversations WHERE id = $1) ";
    match selection {
        Selection::All(page) => query(on, ALL).bind(page.limit).bind(page.skip),
        Selection::OfUser(id, page) => query(on, OF_USER).bind(id).bind(page.limit).bind(page.skip),
        Selection::One(id) => query(on, ONE).bind(id),
    }
}

/// By id.
pub async fn conversations(
    on: impl Into<On<'_>>,
    selection: Selection,
) -> Result<Vec<ConversationRow>> {
    const SQL: &str = "SELECT id, title, last_seq, created_at, updated_at FROM page ORDER BY id";
    select(on, selection).push(SQL).all().await
}

/// The participants of each, by conversation and then by id.
pub async fn participants(
    on: impl Into<On<'_>>,
    selection: Selection,
) -> Result<Vec<(i64, Participant)>> {
    const SQL: &str = "SELECT p.conversation_id, u.id, u.username, u.email FROM page \
         JOIN participants p ON p.conversation_id = page.id JOIN users u ON u.id = p.user_id \
         ORDER BY p.conversation_id, u.id";
    let rows: Vec<ParticipantRow> = select(on, selection).push(SQL).all().await?;
    let pairs = rows.into_iter().map(|row| {
        let ParticipantRow { conversation_id, id, username, email } = row;
        (conversation_id, Participant { id, username, email })
    });
    Ok(pairs.collect())
}

/// The newest `limit` messages of each, by conversation and then in their order; fewer where the
/// contents of all together would take more than `bytes`.
pub async fn newest_messages(
    on: impl Into<On<'_>>,
    selection: Selection,
    limit: i64,
    bytes: usize,
) -> Result<Vec<Message>> {
    // 256 stands for the rest of a message in JSON.
    const SIZES: &str = "SELECT m.id AS id, \
         SUM(octet_length(m.content) + 256) OVER (ORDER BY page.id, m.seq DESC) AS total \
         FROM page JOIN messages m ON m.conversation_id = page.id AND m.seq > page.last_seq - ";
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
    Ok(rows.into_iter().map(Message::from).collect())
}

/// The messages of conversation `id` whose numbers are beyond `after`, in their order.
pub async fn messages(
    on: impl Into<On<'_>>,
    id: i64,
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
    Ok(rows.into_iter().map(Message::from).collect())
}

pub async fn exists(on: impl Into<On<'_>>, id: i64) -> Result<bool> {
    const SQL: &str = "SELECT id FROM conversations WHERE id = $1";
    Ok(query(on, SQL).bind(id).optional::<(i64,)>().await?.is_some())
}

pub async fn user_exists(on: impl Into<On<'_>>, id: i64) -> Result<bool> {
    const SQL: &str = "SELECT id FROM users WHERE id = $1";
    Ok(query(on, SQL).bind(id).optional::<(i64,)>().await?.is_some())
}

/// The new conversation's id.
pub async fn insert(tx: &mut Tx, title: Option<&str>, now: DateTime<Utc>) -> Result<i64> {
    const SQL: &str = "INSERT INTO conversations (title, created_at, updated_at) \
                       VALUES ($1, $2, $2) RETURNING id";
    let (id,): (i64,) = query(tx, SQL).bind(title).bind(now).one().await?;
    Ok(id)
}

/// Lets those of `user_ids` who exist take part in conversation `id`; the ids of those added.
pub async fn insert_participants(tx: &mut Tx, id: i64, user_ids: &[i64]) -> Result<Vec<i64>> {
    const SQL: &str = "INSERT INTO participants (conversation_id, user_id) \
         SELECT c.id, u.id FROM conversations c CROSS JOIN users u WHERE c.id = $1 AND u.id IN (";
    if user_ids.is_empty() {
        return Ok(vec![]);
    }
    let mut statement = query(tx, SQL).bind(id);
    for (index, user_id) in user_ids.iter().enumerate() {
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(*user_id);
    }
    let rows: Vec<(i64,)> =
        statement.push(") ON CONFLICT DO NOTHING RETURNING user_id").all().await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Whether the user took part.
pub async fn delete_participant(tx: &mut Tx, id: i64, user_id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2";
    Ok(query(tx, SQL).bind(id).bind(user_id).execute().await? == 1)
}

/// A user, if they take part.
pub async fn participant(
    on: impl Into<On<'_>>,
    id: i64,
    user_id: i64,
) -> Result<Option<Participant>> {
    const SQL: &str = "SELECT p.conversation_id, u.id, u.username, u.email FROM participants p \
         JOIN users u ON u.id = p.user_id WHERE p.conversation_id = $1 AND p.user_id = $2";
    let row: Option<ParticipantRow> = query(on, SQL).bind(id).bind(user_id).optional().await?;
    Ok(row.map(|row| Participant { id: row.id, username: row.username, email: row.email }))
}

/// Makes others who change conversation `id` wait until `tx` ends. Whoever changes what belongs to
/// it locks it first: in two orders, two of them would wait for each other. Whether it exists.
pub async fn lock(tx: &mut Tx, id: i64) -> Result<bool> {
    const SQL: &str = "UPDATE conversations SET last_seq = last_seq WHERE id = $1";
    Ok(query(tx, SQL).bind(id).execute().await? == 1)
}

/// Sets the title, if there is a new one, and the time of change. Whether there is such a
/// conversation.
pub async fn update(tx: &mut Tx, id: i64, title: Option<&str>, now: DateTime<Utc>) -> Result<bool> {
    const SQL: &str = "UPDATE conversations SET title = COALESCE($2, title), updated_at = $3 \
                       WHERE id = $1";
    Ok(query(tx, SQL).bind(id).bind(title).bind(now).execute().await? == 1)
}

/// The number of the next message of conversation `id`, which is locked until `tx` ends, so that
/// numbers are in the order of the commits; and the message's time, which is `now`, but never before
/// that of the message before. `None` when there is no such conversation.
pub async fn next_seq(
    tx: &mut Tx,
    id: i64,
    now: DateTime<Utc>,
) -> Result<Option<(i64, Timestamp)>> {
    const SQL: &str = "UPDATE conversations SET last_seq = last_seq + 1, \
         updated_at = CASE WHEN updated_at < $2 THEN $2 ELSE updated_at END \
         WHERE id = $1 RETURNING last_seq, updated_at";
    query(tx, SQL).bind(id).bind(now).optional().await
}

/// The new message's id.
pub async fn insert_message(
    tx: &mut Tx,
    conversation_id: i64,
    seq: i64,
    new: &NewMessage,
    created_at: Timestamp,
) -> Result<i64> {
    const SQL: &str = "INSERT INTO messages (conversation_id, seq, role, content, user_id, created_at) \
                       VALUES ($1, $2, $3, $4, $5, $6) RETURNING id";
    let insert = query(tx, SQL)
        .bind(conversation_id)
        .bind(seq)
        .bind(&*new.role)
        .bind(&*new.content)
        .bind(new.user_id)
        .bind(created_at.0);
    let (id,): (i64,) = insert.one().await?;
    Ok(id)
}

/// Whether there was such a conversation. Its messages and memberships go with it.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM conversations WHERE id = $1";
    Ok(query(tx, SQL).bind(id).execute().await? == 1)
}
