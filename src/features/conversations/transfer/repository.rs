//! SQL for moving conversations, and nothing else.

use super::model::{ExportedConversation, ExportedMessage, ExportedUser, ImportedMessage, Person};
use crate::core::clock::Timestamp;
use crate::db::{On, Snapshot, Tx, query};
use crate::features::conversations::model::Metadata;
use crate::features::conversations::repository::{size, within_reach};
use crate::security::Reach;
use chrono::{DateTime, Utc};
use sqlx::Result;

#[derive(sqlx::FromRow)]
struct ConversationRow {
    external_id: Option<String>,
    title: Option<String>,
    metadata: Option<String>,
    last_seq: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct MessageRow {
    role: String,
    content: String,
    user_id: Option<i64>,
    username: Option<String>,
    email: Option<String>,
    metadata: Option<String>,
    created_at: Timestamp,
    edited_at: Option<Timestamp>,
    deleted_at: Option<Timestamp>,
}

impl Person {
    /// User `id` as somebody with this `reach` sees them.
    fn seen_by(reach: Reach, id: i64, username: String, email: String) -> Self {
        let may_see = reach.user_id().is_none_or(|own| own == id);
        Self { username, email: Some(email).filter(|_| may_see) }
    }
}

impl MessageRow {
    fn seen_by(self, reach: Reach) -> ExportedMessage {
        let user = match (self.user_id, self.username, self.email) {
            (Some(id), Some(name), Some(email)) => Some(Person::seen_by(reach, id, name, email)),
            _ => None,
        };
        ExportedMessage {
            role: self.role,
            content: self.content,
            user,
            metadata: Metadata::shown(self.metadata),
            created_at: self.created_at,
            edited_at: self.edited_at,
            deleted_at: self.deleted_at,
        }
    }
}

/// User `id` as an export begins with them.
pub async fn user(on: impl Into<On<'_>>, id: i64) -> Result<Option<ExportedUser>> {
    const SQL: &str = "SELECT username, email, full_name, is_active, created_at, updated_at \
         FROM users WHERE id = $1";
    query(on, SQL).bind(id).optional().await
}

/// The first `limit` conversations beyond `after` that user `user_id` takes part in, by id.
pub async fn ids_of_user(
    on: impl Into<On<'_>>,
    user_id: i64,
    after: i64,
    limit: i64,
) -> Result<Vec<i64>> {
    const SQL: &str = "SELECT conversation_id FROM participants \
         WHERE user_id = $1 AND conversation_id > $2 ORDER BY conversation_id LIMIT $3";
    let statement = query(on, SQL).bind(user_id).bind(after).bind(limit);
    let rows: Vec<(i64,)> = statement.all().await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Conversation `id`, if it is within `reach`, without its messages.
pub async fn conversation(
    snapshot: &mut Snapshot,
    id: i64,
    reach: Reach,
) -> Result<Option<ExportedConversation>> {
    const CONVERSATION: &str = concat!(
        "SELECT c.external_id, c.title, c.metadata, c.last_seq, c.created_at, c.updated_at \
         FROM conversations c WHERE c.id = $1 AND ",
        within_reach!("c.id", "$2")
    );
    const PARTICIPANTS: &str = "SELECT u.id, u.username, u.email FROM participants p \
         JOIN users u ON u.id = p.user_id WHERE p.conversation_id = $1";
    let statement = query(&mut *snapshot, CONVERSATION).bind(id).bind(reach.user_id());
    let Some(row) = statement.optional::<ConversationRow>().await? else { return Ok(None) };
    let users: Vec<(i64, String, String)> = query(snapshot, PARTICIPANTS).bind(id).all().await?;
    let people = users.into_iter().map(|(id, name, email)| Person::seen_by(reach, id, name, email));
    let mut participants: Vec<Person> = people.collect();
    // Ids differ between installations, and the order of letters between databases.
    participants.sort_unstable_by(|a, b| a.username.cmp(&b.username));
    Ok(Some(ExportedConversation {
        external_id: row.external_id.unwrap_or_default(),
        title: row.title,
        metadata: Metadata::shown(row.metadata),
        created_at: row.created_at,
        updated_at: row.updated_at,
        participants,
        message_count: row.last_seq,
    }))
}

/// The first of the `limit` messages with numbers beyond `after` and up to `last`, in their order, that
/// take about `bytes`, one message more at most; none where the conversation is not within `reach`.
pub async fn messages(
    on: impl Into<On<'_>>,
    id: i64,
    reach: Reach,
    (after, last): (i64, i64),
    (limit, bytes): (i64, i64),
) -> Result<Vec<ExportedMessage>> {
    const SQL: &str = concat!(
        "WITH part AS MATERIALIZED (SELECT m.id AS id, SUM(",
        size!(),
        ") OVER (ORDER BY m.seq) - (",
        size!(),
        ") AS before FROM messages m \
         WHERE m.conversation_id = $1 AND m.seq > $2 AND m.seq <= $3) \
         SELECT m.role, m.content, m.user_id, u.username, u.email, m.metadata, m.created_at, \
         m.edited_at, m.deleted_at FROM part CROSS JOIN messages m \
         LEFT JOIN users u ON u.id = m.user_id WHERE m.id = part.id AND part.before < $4 AND ",
        within_reach!("$1", "$5"),
        " ORDER BY m.seq"
    );
    let statement = query(on, SQL).bind(id).bind(after).bind(last.min(after + limit));
    let statement = statement.bind(bytes).bind(reach.user_id());
    let rows: Vec<MessageRow> = statement.all().await?;
    Ok(rows.into_iter().map(|row| row.seen_by(reach)).collect())
}

/// A conversation that is taken in.
pub struct NewConversation<'c> {
    pub title: Option<&'c str>,
    pub metadata: Option<&'c Metadata>,
    pub last_seq: i64,
    /// When the newest message was appended, or the conversation begun.
    pub active_at: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A message that is taken in, and its place.
pub struct NewMessage<'m> {
    pub seq: i64,
    pub user_id: Option<i64>,
    pub message: &'m ImportedMessage,
}

/// Whether there is a conversation of that name.
pub async fn is_here(on: impl Into<On<'_>>, external_id: &str) -> Result<bool> {
    const SQL: &str = "SELECT id FROM conversations WHERE external_id = $1";
    Ok(query(on, SQL).bind(external_id).optional::<(i64,)>().await?.is_some())
}

/// The new conversation's id. Nobody finds it yet, and after `until` it is removed.
pub async fn insert(tx: &mut Tx, new: &NewConversation<'_>, until: DateTime<Utc>) -> Result<i64> {
    const SQL: &str = "INSERT INTO conversations \
        (title, metadata, last_seq, active_at, created_at, updated_at, retired_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id";
    let statement = query(tx, SQL)
        .bind(new.title)
        .bind(new.metadata.map(Metadata::as_str))
        .bind(new.last_seq)
        .bind(new.active_at)
        .bind(new.created_at)
        .bind(new.updated_at)
        .bind(until);
    let (id,): (i64,) = statement.one().await?;
    Ok(id)
}

/// Hides conversation `id` until `until`. Whether it still was at `now`.
pub async fn hide(tx: &mut Tx, id: i64, now: DateTime<Utc>, until: DateTime<Utc>) -> Result<bool> {
    const SQL: &str = "UPDATE conversations SET retired_at = $3 WHERE id = $1 AND retired_at > $2";
    Ok(query(tx, SQL).bind(id).bind(now).bind(until).execute().await? == 1)
}

/// Lets everybody find conversation `id`, by the name `external_id`. Whether it was hidden still at
/// `now`.
pub async fn show(tx: &mut Tx, id: i64, external_id: &str, now: DateTime<Utc>) -> Result<bool> {
    const SQL: &str = "UPDATE conversations SET retired_at = NULL, external_id = $2 \
        WHERE id = $1 AND retired_at > $3";
    Ok(query(tx, SQL).bind(id).bind(external_id).bind(now).execute().await? == 1)
}

/// Lets conversation `id`, which is hidden, be removed from `now` on.
pub async fn leave_behind(tx: &mut Tx, id: i64, now: DateTime<Utc>) -> Result<()> {
    const SQL: &str =
        "UPDATE conversations SET retired_at = $2 WHERE id = $1 AND retired_at IS NOT NULL";
    query(tx, SQL).bind(id).bind(now).execute().await.map(drop)
}

/// Appends `messages` to conversation `id`.
pub async fn insert_messages(tx: &mut Tx, id: i64, messages: &[NewMessage<'_>]) -> Result<()> {
    const SQL: &str = "INSERT INTO messages (conversation_id, seq, role, content, user_id, \
        metadata, created_at, edited_at, deleted_at) VALUES ";
    let mut statement = query(tx, SQL);
    for (index, NewMessage { seq, user_id, message }) in messages.iter().enumerate() {
        statement = statement.push(if index == 0 { "(" } else { ", (" }).push_bind(id);
        statement = statement.push(", ").push_bind(*seq);
        statement = statement.push(", ").push_bind(&*message.role);
        statement = statement.push(", ").push_bind(&*message.content);
        statement = statement.push(", ").push_bind(*user_id);
        statement = statement.push(", ").push_bind(message.metadata.as_deref());
        statement = statement.push(", ").push_bind(message.created_at);
        statement = statement.push(", ").push_bind(message.edited_at);
        statement = statement.push(", ").push_bind(message.deleted_at).push(")");
    }
    statement.execute().await.map(drop)
}

/// Takes back what the schema noted of conversation `id`.
pub async fn forget_events(tx: &mut Tx, id: i64) -> Result<()> {
    const SQL: &str = "DELETE FROM conversation_events WHERE conversation_id = $1";
    query(tx, SQL).bind(id).execute().await.map(drop)
}
