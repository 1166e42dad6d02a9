//! SQL for conversations, and nothing else.

mod accounts;
pub mod messages;
mod page;
pub mod participants;
mod reach;
pub mod storage;
mod weight;

pub use accounts::accounts;
pub use page::{Belongings, Room, find};
pub(in crate::features::conversations) use reach::within_reach;
pub(in crate::features::conversations) use weight::size;
pub use weight::{Weighed, first_that_fits, weigh};

use super::model::Metadata;
use crate::core::clock::Timestamp;
use crate::db::{On, Tx, query};
use crate::http::{Direction, Listed, Slice};
use crate::security::Reach;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::Result;

/// Which conversations to read.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'s> {
    /// A part of the list of all, or of those that a user takes part in.
    Listed { of_user: Option<i64>, slice: &'s ConversationSlice },
    /// Those of these ids that are within reach.
    Ids(&'s [i64], Reach),
}

/// A part of a list of conversations, by what it is sorted by.
#[derive(Debug)]
pub enum ConversationSlice {
    /// Their ids.
    ById(Slice<i64>),
    /// When something was said in them, and their ids.
    Recent(Slice<(DateTime<Utc>, i64)>),
}

impl ConversationSlice {
    /// Puts `rows` into the order in which the list is read.
    fn sort<P: Placed>(&self, rows: &mut [P]) {
        let scan = match self {
            Self::ById(slice) => {
                rows.sort_unstable_by_key(|row| row.place().1);
                slice.scan()
            }
            Self::Recent(slice) => {
                rows.sort_unstable_by_key(P::place);
                slice.scan()
            }
        };
        if scan == Direction::Descending {
            rows.reverse();
        }
    }

    /// The page that `rows` make, which [`find`] or [`weigh`] gave.
    pub fn page<P: Placed>(self, rows: Vec<P>) -> Listed<P> {
        match self {
            Self::ById(slice) => slice.page(rows, |row| row.place().1),
            Self::Recent(slice) => slice.page(rows, |row| (row.place().0.0, row.place().1)),
        }
    }
}

/// A row that has a place in lists of conversations.
pub trait Placed {
    /// When something was last said in the conversation, and its id.
    fn place(&self) -> (Timestamp, i64);
}

/// A conversation as it is stored. Messages are numbered without gaps and never removed one by
/// one, so the number of the newest is how many there are.
#[derive(Clone, Debug, Deserialize)]
pub struct ConversationRow {
    pub id: i64,
    pub title: Option<String>,
    pub metadata: Option<String>,
    pub last_seq: i64,
    /// When the newest message was appended, or the conversation begun.
    pub active_at: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub participant_count: i64,
}

impl Placed for ConversationRow {
    fn place(&self) -> (Timestamp, i64) {
        (self.active_at, self.id)
    }
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

/// The number of the newest message of conversation `id`, if that is within `reach`.
pub async fn last_seq(on: impl Into<On<'_>>, id: i64, reach: Reach) -> Result<Option<i64>> {
    const SQL: &str = concat!(
        "SELECT c.last_seq FROM conversations c WHERE c.id = $1 AND ",
        within_reach!("c.id", "$2")
    );
    let found: Option<(i64,)> = query(on, SQL).bind(id).bind(reach.user_id()).optional().await?;
    Ok(found.map(|(last,)| last))
}

/// The new conversation's id.
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

/// Makes others who change conversation `id` wait until `tx` ends. Whoever changes what belongs to
/// it locks it first: in two orders, two of them would wait for each other. Whether there is one
/// within `reach`.
pub async fn lock(tx: &mut Tx, id: i64, reach: Reach) -> Result<bool> {
    const SQL: &str = concat!(
        "UPDATE conversations SET last_seq = last_seq WHERE id = $1 AND retired_at IS NULL AND ",
        within_reach!("conversations.id", "$2")
    );
    let locked = query(&mut *tx, SQL).bind(id).bind(reach.user_id()).execute().await? == 1;
    // On Postgres, a statement that waited for the lock knows who took part before it waited.
    Ok(locked && (reach == Reach::Everything || exists(tx, id, reach).await?))
}

/// Sets the title and the metadata, where there are new ones, and the time of change, which only goes
/// forward. Whether there is such a conversation.
pub async fn update(
    tx: &mut Tx,
    id: i64,
    title: Option<&str>,
    metadata: Option<&Metadata>,
    now: DateTime<Utc>,
) -> Result<bool> {
    const SQL: &str = "UPDATE conversations SET title = COALESCE($2, title), \
        metadata = COALESCE($3, metadata), \
        updated_at = CASE WHEN updated_at < $4 THEN $4 ELSE updated_at END \
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

/// Lets nobody find conversation `id` any more, which is locked; its rows are removed later. Its name
/// in other installations is free: it may be taken in anew.
pub async fn retire(tx: &mut Tx, id: i64, now: DateTime<Utc>) -> Result<()> {
    // In the row itself, so that who waits for its lock sees it.
    const MARK: &str = "UPDATE conversations SET retired_at = $2, external_id = NULL WHERE id = $1";
    const PARTICIPANTS: &str = "DELETE FROM participants WHERE conversation_id = $1";
    query(&mut *tx, MARK).bind(id).bind(now).execute().await?;
    query(tx, PARTICIPANTS).bind(id).execute().await.map(drop)
}

/// Whether there was such a conversation. Its messages and memberships go with it.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM conversations WHERE id = $1 AND retired_at IS NULL";
    Ok(query(tx, SQL).bind(id).execute().await? == 1)
}
