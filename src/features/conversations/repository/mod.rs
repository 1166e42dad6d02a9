//! SQL for conversations, and nothing else.

pub mod messages;
pub mod participants;
mod reach;

pub(in crate::features::conversations) use reach::within_reach;

use super::model::Metadata;
use crate::core::clock::Timestamp;
use crate::db::{On, Query, Tx, query};
use crate::http::Page;
use crate::security::Reach;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// Which conversations to read.
#[derive(Clone, Copy, Debug)]
pub enum Selection {
    All(Page),
    OfUser(i64, Page),
    One(i64, Reach),
}

/// A conversation as it is stored. Messages are numbered without gaps and never removed one by
/// one, so the number of the newest is how many there are.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ConversationRow {
    pub id: i64,
    pub title: Option<String>,
    pub metadata: Option<String>,
    pub last_seq: i64,
    pub last_message_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The columns of [`ConversationRow`], of `conversations c`.
macro_rules! columns {
    () => {
        "c.id, c.title, c.metadata, c.last_seq, c.last_message_at, c.created_at, c.updated_at"
    };
}

/// The beginning of a statement that reads of the conversations selected, which it calls `c`.
fn select<'c>(on: impl Into<On<'c>>, selection: Selection) -> Query<'c> {
    const ALL: &str = concat!(
        "WITH c AS (SELECT ",
        columns!(),
        " FROM conversations c WHERE c.retired_at IS NULL ORDER BY c.id LIMIT $1 OFFSET $2) "
    );
    const OF_USER: &str = concat!(
        "WITH c AS (SELECT ",
        columns!(),
        " FROM participants p JOIN conversations c ON c.id = p.conversation_id \
         WHERE p.user_id = $1 ORDER BY p.conversation_id LIMIT $2 OFFSET $3) "
    );
    const ONE: &str = concat!(
        "WITH c AS (SELECT ",
        columns!(),
        " FROM conversations c WHERE c.id = $1 AND ",
        within_reach!("c.id", "$2"),
        ") "
    );
    match selection {
        Selection::All(page) => query(on, ALL).bind(page.limit).bind(page.skip),
        Selection::OfUser(id, page) => query(on, OF_USER).bind(id).bind(page.limit).bind(page.skip),
        Selection::One(id, reach) => query(on, ONE).bind(id).bind(reach.user_id()),
    }
}

/// By id.
pub async fn conversations(
    on: impl Into<On<'_>>,
    selection: Selection,
) -> Result<Vec<ConversationRow>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM c ORDER BY c.id");
    select(on, selection).push(SQL).all().await
}

/// Whether there is conversation `id` within `reach`.
pub async fn exists(on: impl Into<On<'_>>, id: i64, reach: Reach) -> Result<bool> {
    const SQL: &str = concat!(
        "SELECT c.id FROM conversations c WHERE c.id = $1 AND ",
        within_reach!("c.id", "$2")
    );
    let statement = query(on, SQL).bind(id).bind(reach.user_id());
    Ok(statement.optional::<(i64,)>().await?.is_some())
}

/// The new conversation's id.
pub async fn insert(
    tx: &mut Tx,
    title: Option<&str>,
    metadata: Option<&Metadata>,
    now: DateTime<Utc>,
) -> Result<i64> {
    const SQL: &str = "INSERT INTO conversations (title, metadata, created_at, updated_at) \
                       VALUES ($1, $2, $3, $3) RETURNING id";
    let statement = query(tx, SQL).bind(title).bind(metadata.map(Metadata::as_str)).bind(now);
    let (id,): (i64,) = statement.one().await?;
    Ok(id)
}

/// Makes others who change conversation `id` wait until `tx` ends. Whoever changes what belongs to
/// it locks it first: in two orders, two of them would wait for each other. Whether there is one
/// within `reach`.
pub async fn lock(tx: &mut Tx, id: i64, reach: Reach) -> Result<bool> {
    const SQL: &str = concat!(
        "UPDATE conversations SET last_seq = last_seq WHERE id = $1 AND retired_at IS NULL AND ",
        within_reach!("conversations.id", "$2")
    );
    Ok(query(tx, SQL).bind(id).bind(reach.user_id()).execute().await? == 1)
}

/// Sets the title and the metadata, where there are new ones, and the time of change. Whether there
/// is such a conversation.
pub async fn update(
    tx: &mut Tx,
    id: i64,
    title: Option<&str>,
    metadata: Option<&Metadata>,
    now: DateTime<Utc>,
) -> Result<bool> {
    const SQL: &str = "UPDATE conversations SET title = COALESCE($2, title), \
        metadata = COALESCE($3, metadata), updated_at = $4 \
        WHERE id = $1 AND retired_at IS NULL";
    let statement = query(tx, SQL).bind(id).bind(title).bind(metadata.map(Metadata::as_str));
    Ok(statement.bind(now).execute().await? == 1)
}

/// Sets the time of change of conversation `id`, which only goes forward.
pub async fn touch(tx: &mut Tx, id: i64, now: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "UPDATE conversations SET updated_at = \
        CASE WHEN updated_at < $2 THEN $2 ELSE updated_at END WHERE id = $1";
    query(tx, SQL).bind(id).bind(now).execute().await.map(drop)
}

/// Whether there was such a conversation. Its messages and memberships go with it.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM conversations WHERE id = $1 AND retired_at IS NULL";
    Ok(query(tx, SQL).bind(id).execute().await? == 1)
}
