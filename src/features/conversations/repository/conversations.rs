//! SQL for rows of conversations.

use super::selection::Placed;
use super::visibility::visible;
use crate::core::clock::{MAX_REORDERING, Timestamp};
use crate::core::stored_time::StoredTime;
use crate::db::{Executor, Tx, query};
use crate::features::conversations::model::Metadata;
use crate::security::Visibility;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::Result;

/// A stored conversation. Messages are numbered without gaps and never removed one by one, so
/// `last_seq` is also the number of messages.
#[derive(Clone, Debug, Deserialize)]
pub struct ConversationRow {
    pub id: i64,
    pub title: Option<String>,
    pub metadata: Option<String>,
    pub last_seq: i64,
    /// Time of the newest message, or of creation if there are no messages.
    pub active_at: StoredTime,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub participant_count: i64,
}

impl Placed for ConversationRow {
    fn place(&self) -> (StoredTime, i64) {
        (self.active_at, self.id)
    }
}

/// Returns whether conversation `id` exists and is visible.
pub async fn exists(on: impl Into<Executor<'_>>, id: i64, visibility: Visibility) -> Result<bool> {
    const SQL: &str =
        concat!("SELECT c.id FROM conversations c WHERE c.id = $1 AND ", visible!("c.id", "$2"));
    let statement = query(on, SQL).bind(id).bind(visibility.user_id());
    Ok(statement.optional::<(i64,)>().await?.is_some())
}

/// `seq` of the newest message of conversation `id`, if the conversation is visible.
pub async fn last_seq(
    on: impl Into<Executor<'_>>,
    id: i64,
    visibility: Visibility,
) -> Result<Option<i64>> {
    const SQL: &str = concat!(
        "SELECT c.last_seq FROM conversations c WHERE c.id = $1 AND ",
        visible!("c.id", "$2")
    );
    let found: Option<(i64,)> =
        query(on, SQL).bind(id).bind(visibility.user_id()).optional().await?;
    Ok(found.map(|(last,)| last))
}

/// Inserts a conversation and returns its id.
pub async fn insert(
    tx: &mut Tx,
    title: Option<&str>,
    metadata: Option<&Metadata>,
    now: DateTime<Utc>,
) -> Result<i64> {
    const SQL: &str = "INSERT INTO conversations (title, metadata, active_at, created_at, updated_at) \
        VALUES ($1, $2, $3, $3, $3) RETURNING id";
    let statement = query(tx, SQL).bind(title).bind(metadata.map(Metadata::as_str)).bind(now);
    let (id,): (i64,) = statement.one().await?;
    Ok(id)
}

/// Locks conversation `id` until `tx` ends. Every transaction that changes rows of a conversation
/// locks the conversation first, which prevents deadlocks. Returns whether the conversation exists
/// and is visible.
pub async fn lock(tx: &mut Tx, id: i64, visibility: Visibility) -> Result<bool> {
    const SQL: &str = concat!(
        "UPDATE conversations SET last_seq = last_seq WHERE id = $1 AND retired_at IS NULL AND ",
        visible!("conversations.id", "$2")
    );
    let locked = query(&mut *tx, SQL).bind(id).bind(visibility.user_id()).execute().await? == 1;
    // On Postgres, a statement that waited for the lock used the participants from before the wait.
    Ok(locked && (visibility == Visibility::All || exists(tx, id, visibility).await?))
}

/// The metadata of conversation `id`, as stored.
pub async fn metadata(on: impl Into<Executor<'_>>, id: i64) -> Result<Option<String>> {
    const SQL: &str = "SELECT metadata FROM conversations WHERE id = $1";
    let found: Option<(Option<String>,)> = query(on, SQL).bind(id).optional().await?;
    Ok(found.and_then(|(metadata,)| metadata))
}

/// SQL for the new `updated_at` of a conversation that changes at time `$2`. It does not decrease,
/// unless it is later than `$3`, which is [`MAX_REORDERING`] after `$2`.
macro_rules! updated_at {
    () => {
        "CASE WHEN updated_at < $2 OR updated_at > $3 THEN $2 ELSE updated_at END"
    };
}
pub(super) use updated_at;

/// Sets the title and metadata, where given, to a value or NULL, and `updated_at`. Returns whether
/// the conversation exists.
pub async fn update(
    tx: &mut Tx,
    id: i64,
    title: Option<Option<&str>>,
    metadata: Option<Option<&Metadata>>,
    now: DateTime<Utc>,
) -> Result<bool> {
    const SQL: &str = concat!("UPDATE conversations SET updated_at = ", updated_at!());
    let mut statement = query(tx, SQL).bind(id).bind(now).bind(now + MAX_REORDERING);
    if let Some(title) = title {
        statement = statement.push(", title = ").push_bind(title);
    }
    if let Some(metadata) = metadata {
        statement = statement.push(", metadata = ").push_bind(metadata.map(Metadata::as_str));
    }
    Ok(statement.push(" WHERE id = $1 AND retired_at IS NULL").execute().await? == 1)
}

/// Sets `updated_at` of conversation `id`.
pub async fn touch(tx: &mut Tx, id: i64, now: DateTime<Utc>) -> Result<()> {
    const SQL: &str =
        concat!("UPDATE conversations SET updated_at = ", updated_at!(), " WHERE id = $1");
    query(tx, SQL).bind(id).bind(now).bind(now + MAX_REORDERING).execute().await.map(drop)
}

/// Hides conversation `id`, which is locked; its rows are removed later. Clears `external_id`, so
/// that the conversation can be imported again.
pub async fn retire(tx: &mut Tx, id: i64, now: DateTime<Utc>) -> Result<()> {
    // In the row itself, so that a transaction that waits for its lock sees it.
    const MARK: &str = "UPDATE conversations SET retired_at = $2, external_id = NULL WHERE id = $1";
    const PARTICIPANTS: &str = "DELETE FROM participants WHERE conversation_id = $1";
    query(&mut *tx, MARK).bind(id).bind(now).execute().await?;
    query(tx, PARTICIPANTS).bind(id).execute().await.map(drop)
}

/// Deletes a conversation with its messages and participants. Returns whether it existed.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM conversations WHERE id = $1 AND retired_at IS NULL";
    Ok(query(tx, SQL).bind(id).execute().await? == 1)
}
