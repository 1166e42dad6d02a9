//! Gives SQLite's index the messages that it lacks. FTS5 makes a part of whatever a savepoint wrote,
//! and merges parts: message by message, a third of what a POST of one cost. What waits is found all
//! the same ([`super::service`]). On Postgres, GIN gathers by itself.

use super::repository::{self, Candidate};
use crate::db::{Db, Tx};
use sqlx::Result;
use tokio_util::sync::CancellationToken;

/// Messages that the index takes in one transaction, during which nobody else writes.
const PART: Part = Part { messages: 1000, bytes: 128 * 1024 };

/// How much the index takes at once, but for one message.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// At most so many messages.
    pub messages: i64,
    /// With so many bytes of content.
    pub bytes: i64,
}

impl Part {
    /// Whatever there is.
    pub const ALL: Self = Self { messages: i64::MAX, bytes: i64::MAX };
}

/// Gives the index all that it lacks, or until `stop`.
pub async fn catch_up(db: &Db, stop: &CancellationToken) -> Result<()> {
    while !stop.is_cancelled() && repository::lacks_some(db).await? {
        let mut tx = db.begin_long().await?;
        index_part(&mut tx, PART).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Gives the index the next messages that it lacks: how many there were.
pub async fn index_part(tx: &mut Tx, part: Part) -> Result<usize> {
    let next = repository::next_unindexed(tx, part.messages).await?;
    let count = fitting(&next, part.bytes);
    if let Some(last) = next[..count].last() {
        repository::index_up_to(tx, last.id).await?;
    }
    Ok(count)
}

/// How many of `candidates`, from the first, have `bytes` together: one at least, if there is one.
pub(super) fn fitting(candidates: &[Candidate], bytes: i64) -> usize {
    let mut total: i64 = 0;
    let fitting = candidates.iter().take_while(|candidate| {
        total = total.saturating_add(candidate.bytes);
        total <= bytes
    });
    fitting.count().max(1).min(candidates.len())
}
