//! Finds messages through the index, in bounded time.

use super::repository::{self, CONTENTS, Condition, Scope};
use super::words::Words;
use crate::core::error::{Error, Result};
use crate::core::trouble::is_statement_timeout;
use crate::db::Snapshot;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Milliseconds that the index may take to answer.
const LIMIT: u16 = 3000;
const TOO_LONG: Error = Error::TimedOut(
    "The search took too long: search for longer or rarer words, or in one conversation",
);

/// Messages that SQLite's index is asked about in the first statement. A statement cannot be stopped
/// while FTS5 looks for the next match, so the number of messages bounds its time.
const FIRST: i64 = 256;
/// The next statement covers twice as many messages after one that was faster than this, and half as
/// many after one that was not.
const QUICK: Duration = Duration::from_millis(20);

/// A search for messages that the index has.
pub struct Older<'a> {
    pub scope: Scope,
    pub words: &'a Words,
    pub condition: Condition,
    /// The most ids to return.
    pub wanted: usize,
}

impl Older<'_> {
    /// The ids, the newest first.
    pub async fn find(&self, snapshot: &mut Snapshot) -> Result<Vec<i64>> {
        if snapshot.is_sqlite() {
            return self.on_sqlite(snapshot).await;
        }
        let (scope, condition, limit) = (self.scope, &self.condition, limit(self.wanted));
        let found = repository::found_on_postgres(snapshot, scope, condition, LIMIT, limit).await;
        found.map_err(|error| if is_statement_timeout(&error) { TOO_LONG } else { error.into() })
    }

    async fn on_sqlite(&self, snapshot: &mut Snapshot) -> Result<Vec<i64>> {
        let deadline = Instant::now() + Duration::from_millis(LIMIT.into());
        let mut end = repository::last_place(snapshot, self.scope).await? + 1;
        let (mut ids, mut size) = (vec![], FIRST);
        while end > 1 && ids.len() < self.wanted {
            let range = (end - size).max(1)..end;
            let began = Instant::now();
            self.add(snapshot, &range, deadline, &mut ids).await?;
            end = range.start;
            size = if began.elapsed() < QUICK { size * 2 } else { (size / 2).max(1) };
        }
        Ok(ids)
    }

    /// Adds the messages within `range`.
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
        for some in found.chunks(CONTENTS) {
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
