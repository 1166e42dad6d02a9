//! Finds indexed messages in bounded time.

use super::repository::{self, Condition, MAX_CONTENTS, SearchScope};
use super::words::Words;
use crate::core::error::{Error, Result};
use crate::core::transient_error::is_statement_timeout;
use crate::db::Snapshot;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Maximum duration of the index search, in milliseconds.
const TIMEOUT_MS: u16 = 3000;
const TOO_LONG: Error = Error::TimedOut(
    "The search took too long: search for longer or rarer words, or in one conversation",
);

/// Number of messages that the first SQLite statement covers. A statement cannot be interrupted
/// while FTS5 searches for the next match, so the number of messages bounds its duration.
const FIRST_BATCH: i64 = 256;
/// Target duration of a statement: the next one covers twice as many messages if this one was
/// faster, and half as many otherwise.
const TARGET_DURATION: Duration = Duration::from_millis(20);

/// A search of the indexed messages.
pub struct IndexSearch<'a> {
    pub scope: SearchScope,
    pub words: &'a Words,
    pub condition: Condition,
    /// Maximum number of ids to return.
    pub wanted: usize,
}

impl IndexSearch<'_> {
    /// Returns the ids, sorted newest first. Fails with 504 after [`TIMEOUT_MS`].
    pub async fn find(&self, snapshot: &mut Snapshot) -> Result<Vec<i64>> {
        if snapshot.is_sqlite() {
            return self.on_sqlite(snapshot).await;
        }
        let (scope, condition, limit) = (self.scope, &self.condition, limit(self.wanted));
        let found =
            repository::found_on_postgres(snapshot, scope, condition, TIMEOUT_MS, limit).await;
        found.map_err(|error| if is_statement_timeout(&error) { TOO_LONG } else { error.into() })
    }

    async fn on_sqlite(&self, snapshot: &mut Snapshot) -> Result<Vec<i64>> {
        let deadline = Instant::now() + Duration::from_millis(TIMEOUT_MS.into());
        let mut end = repository::search_range_end(snapshot, self.scope).await? + 1;
        let (mut ids, mut size) = (vec![], FIRST_BATCH);
        while end > 1 && ids.len() < self.wanted {
            let range = (end - size).max(1)..end;
            let began = Instant::now();
            self.add(snapshot, &range, deadline, &mut ids).await?;
            end = range.start;
            size = if began.elapsed() < TARGET_DURATION { size * 2 } else { (size / 2).max(1) };
        }
        Ok(ids)
    }

    /// Appends the ids of matching messages within `range`.
    async fn add(
        &self,
        snapshot: &mut Snapshot,
        range: &Range<i64>,
        deadline: Instant,
        ids: &mut Vec<i64>,
    ) -> Result<()> {
        if Instant::now() >= deadline {
            return Err(TOO_LONG);
        }
        let (scope, condition) = (self.scope, &self.condition);
        let left = self.wanted - ids.len();
        let limit = if condition.is_exact { limit(left) } else { i64::MAX };
        let found = repository::found_on_sqlite(snapshot, scope, condition, range, limit).await?;
        if condition.is_exact {
            ids.extend(found);
            return Ok(());
        }
        for some in found.chunks(MAX_CONTENTS) {
            if Instant::now() >= deadline {
                return Err(TOO_LONG);
            }
            let contents = repository::contents(&mut *snapshot, some).await?;
            ids.extend(self.words.all_in(contents).await);
        }
        ids.truncate(self.wanted);
        Ok(())
    }
}

fn limit(wanted: usize) -> i64 {
    i64::try_from(wanted).unwrap_or(i64::MAX)
}
