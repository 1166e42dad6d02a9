//! Gives SQLite's index the messages that it lacks. FTS5 makes a part of whatever a savepoint wrote,
//! and merges parts: message by message, a third of what a POST of one cost. What waits is found all
//! the same ([`super::service`]). On Postgres, GIN gathers by itself.

use super::repository;
use crate::core::metrics::QUEUE;
use crate::db::{Db, Tx};
use sqlx::Result;
use tokio_util::sync::CancellationToken;

/// Size of the first batch. Batches double up to [`LAST`]: each one blocks other writers while it runs,
/// and waits for them before it starts.
const FIRST: Part = Part { messages: 1000, bytes: 128 * 1024 };
const LAST: Part = Part { messages: 16_000, bytes: 2 * 1024 * 1024 };
/// A write of this size indexes older messages itself: the job could not keep up with such writers.
const MUCH: Part = Part { messages: 16, bytes: 16 * 1024 };

/// What a large write indexes in one transaction after its own: other writers come in between.
const SHARE: Part = Part { messages: 1000, bytes: 256 * 1024 };

/// A number of messages and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Number of messages.
    pub messages: i64,
    /// Bytes of their content.
    pub bytes: i64,
}

impl Part {
    /// `messages` messages with `bytes` bytes of content in total.
    pub fn of(messages: usize, bytes: usize) -> Self {
        let [messages, bytes] = [messages, bytes].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        Self { messages, bytes }
    }

    /// Whether indexing so much would keep other writers waiting for too long.
    pub fn is_large(self) -> bool {
        self.twice().reaches(SHARE)
    }

    fn twice(self) -> Self {
        Self { messages: self.messages.saturating_mul(2), bytes: self.bytes.saturating_mul(2) }
    }

    fn reaches(self, other: Self) -> bool {
        self.messages >= other.messages || self.bytes >= other.bytes
    }
}

/// Indexes every message that waits, or stops early when `stop` is cancelled.
pub async fn catch_up(db: &Db, stop: &CancellationToken) -> Result<()> {
    let lacking = repository::lacking(db).await?;
    metrics::gauge!(QUEUE, "queue" => "search").set(lacking);
    if lacking == 0 {
        return Ok(());
    }
    let mut part = FIRST;
    while !stop.is_cancelled() {
        let mut tx = db.begin_long().await?;
        let taken = index_part(&mut tx, part).await?;
        tx.commit().await?;
        if !taken.reaches(part) {
            break;
        }
        if !part.reaches(LAST) {
            part = part.twice();
        }
    }
    Ok(())
}

/// Indexes the oldest waiting messages until `part` is reached in messages or bytes. Returns what was
/// indexed.
pub async fn index_part(tx: &mut Tx, part: Part) -> Result<Part> {
    let Some(next) = repository::next_unindexed(tx, part).await? else {
        return Ok(Part::default());
    };
    repository::index_up_to(tx, next.id).await?;
    Ok(next.part)
}

/// After a write that [is large](Part::is_large), indexes twice as much as was `written`, in
/// transactions of their own that other writers alternate with. If this fails, the job indexes the
/// rest.
pub async fn keep_up_after(db: &Db, written: Part) {
    if matches!(db, Db::Postgres { .. }) {
        return;
    }
    if let Err(error) = index_in_shares(db, written.twice()).await {
        tracing::warn!(event = "search.behind", %error, "the index is behind");
    }
}

async fn index_in_shares(db: &Db, due: Part) -> Result<()> {
    let mut done = Part::default();
    while !done.reaches(due) {
        let mut tx = db.begin_long().await?;
        let taken = index_part(&mut tx, SHARE).await?;
        tx.commit().await?;
        if taken == Part::default() {
            break;
        }
        let messages = done.messages.saturating_add(taken.messages);
        done = Part { messages, bytes: done.bytes.saturating_add(taken.bytes) };
    }
    Ok(())
}

/// After a write of many messages, indexes twice as much as was `written`, so that the backlog shrinks
/// however much is written.
pub async fn keep_up(tx: &mut Tx, written: Part) -> Result<()> {
    if written.reaches(MUCH) {
        index_part(tx, written.twice()).await?;
    }
    Ok(())
}
