//! SQL for the export and import of conversations.

use super::model::{ExportedConversation, ExportedMessage, ExportedUser, ImportedMessage, Person};
use crate::core::clock::Timestamp;
use crate::db::{Executor, Snapshot, Tx, query};
use crate::features::conversations::model::Metadata;
use crate::features::conversations::repository::{size, visible};
use crate::security::Visibility;
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
    /// User `id` as shown to a caller with this `visibility`.
    fn visible_to(visibility: Visibility, id: i64, username: String, email: String) -> Self {
        let may_see = visibility.user_id().is_none_or(|own| own == id);
        Self { username, email: Some(email).filter(|_| may_see) }
    }
}

impl MessageRow {
    fn visible_to(self, visibility: Visibility) -> ExportedMessage {
        let user = match (self.user_id, self.username, self.email) {
            (Some(id), Some(name), Some(email)) => {
                Some(Person::visible_to(visibility, id, name, email))
            }
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

/// User `id` for the first line of an export.
pub async fn user(on: impl Into<Executor<'_>>, id: i64) -> Result<Option<ExportedUser>> {
    const SQL: &str = "SELECT username, email, full_name, is_active, created_at, updated_at \
         FROM users WHERE id = $1";
    query(on, SQL).bind(id).optional().await
}

/// The first `limit` ids, above `after`, of conversations in which user `user_id` is a participant.
pub async fn ids_of_user(
    on: impl Into<Executor<'_>>,
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

/// Conversation `id` without its messages, if it is visible.
pub async fn conversation(
    snapshot: &mut Snapshot,
    id: i64,
    visibility: Visibility,
) -> Result<Option<ExportedConversation>> {
    const CONVERSATION: &str = concat!(
        "SELECT c.external_id, c.title, c.metadata, c.last_seq, c.created_at, c.updated_at \
         FROM conversations c WHERE c.id = $1 AND ",
        visible!("c.id", "$2")
    );
    const PARTICIPANTS: &str = "SELECT u.id, u.username, u.email FROM participants p \
         JOIN users u ON u.id = p.user_id WHERE p.conversation_id = $1";
    let statement = query(&mut *snapshot, CONVERSATION).bind(id).bind(visibility.user_id());
    let Some(row) = statement.optional::<ConversationRow>().await? else { return Ok(None) };
    let users: Vec<(i64, String, String)> = query(snapshot, PARTICIPANTS).bind(id).all().await?;
    let people =
        users.into_iter().map(|(id, name, email)| Person::visible_to(visibility, id, name, email));
    let mut participants: Vec<Person> = people.collect();
    // Sorted here, because ids differ between installations and collations between databases.
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

/// The first messages with `seq` above `after` and up to `last`, in order: at most `limit`, and
/// until their size reaches `bytes`. Empty if the conversation is not visible.
pub async fn messages(
    on: impl Into<Executor<'_>>,
    id: i64,
    visibility: Visibility,
    after: i64,
    last: i64,
    limit: i64,
    bytes: i64,
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
        visible!("$1", "$5"),
        " ORDER BY m.seq"
    );
    let statement = query(on, SQL).bind(id).bind(after).bind(last.min(after + limit));
    let statement = statement.bind(bytes).bind(visibility.user_id());
    let rows: Vec<MessageRow> = statement.all().await?;
    Ok(rows.into_iter().map(|row| row.visible_to(visibility)).collect())
}

/// A conversation to import.
pub struct NewConversation<'c> {
    pub title: Option<&'c str>,
    pub metadata: Option<&'c Metadata>,
    pub last_seq: i64,
    /// Time of the newest message, or of creation if there are no messages.
    pub active_at: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A message to import, with its `seq` and author.
pub struct NewMessage<'m> {
    pub seq: i64,
    pub user_id: Option<i64>,
    pub message: &'m ImportedMessage,
}

/// Returns whether a conversation with this `external_id` exists.
pub async fn exists_by_external_id(on: impl Into<Executor<'_>>, external_id: &str) -> Result<bool> {
    const SQL: &str = "SELECT id FROM conversations WHERE external_id = $1";
    Ok(query(on, SQL).bind(external_id).optional::<(i64,)>().await?.is_some())
}

/// Inserts a hidden conversation and returns its id. The retention job removes it after `until`.
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

/// Extends the time for which conversation `id` is hidden to `until`. Returns whether it was still
/// hidden at `now`.
pub async fn hide(tx: &mut Tx, id: i64, now: DateTime<Utc>, until: DateTime<Utc>) -> Result<bool> {
    const SQL: &str = "UPDATE conversations SET retired_at = $3 WHERE id = $1 AND retired_at > $2";
    Ok(query(tx, SQL).bind(id).bind(now).bind(until).execute().await? == 1)
}

/// Makes conversation `id` visible and sets its `external_id`. Returns whether it was still hidden
/// at `now`.
pub async fn show(tx: &mut Tx, id: i64, external_id: &str, now: DateTime<Utc>) -> Result<bool> {
    const SQL: &str = "UPDATE conversations SET retired_at = NULL, external_id = $2 \
        WHERE id = $1 AND retired_at > $3";
    Ok(query(tx, SQL).bind(id).bind(external_id).bind(now).execute().await? == 1)
}

/// Marks the hidden conversation `id` for removal by the retention job at `now`.
pub async fn mark_for_removal(tx: &mut Tx, id: i64, now: DateTime<Utc>) -> Result<()> {
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

/// Deletes the events that triggers recorded for conversation `id`.
pub async fn forget_events(tx: &mut Tx, id: i64) -> Result<()> {
    const SQL: &str = "DELETE FROM conversation_events WHERE conversation_id = $1";
    query(tx, SQL).bind(id).execute().await.map(drop)
}
