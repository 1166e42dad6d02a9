//! Usage of API keys: the last use and hourly counts by outcome, collected in memory and written in
//! batches.

use super::key::Key;
use super::repository;
use crate::core::clock::MAX_REORDERING;
use crate::db::{Db, Tx};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use dashmap::DashMap;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Keys written per transaction. A small batch keeps other writers from waiting long.
const BATCH: usize = 500;

/// The outcome of a request with an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageOutcome {
    /// The request was authorized.
    Ok,
    /// The key lacked a scope.
    DeniedScope,
    /// The client's address is not on the key's list.
    DeniedAddress,
    /// The key's rate limit was exceeded.
    RateLimited,
    /// The key had expired.
    Expired,
}

/// One use of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Time of the request.
    pub at: DateTime<Utc>,
    /// The client's address, if known.
    pub ip: Option<IpAddr>,
}

/// Number of requests of one key in one hour, indexed by [`UsageOutcome`].
type Counts = [i64; 5];

#[derive(Clone, Debug, Default)]
struct Pending {
    last: Option<Use>,
    hours: BTreeMap<DateTime<Utc>, Counts>,
}

/// Usage that is not in the database yet. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pending: Arc<DashMap<i64, Pending>>,
    /// Serializes flushes: two at the same time would write the same counts twice.
    flushing: Arc<Mutex<()>>,
}

impl Usage {
    /// Records the last use of the valid key `key`, unless a later one is recorded that is at most
    /// [`MAX_REORDERING`] ahead.
    pub fn note(&self, key: &Key, used: Use) {
        let mut pending = self.pending.entry(key.id).or_default();
        let is_later = |at| (used.at..=used.at + MAX_REORDERING).contains(&at);
        if pending.last.is_none_or(|known| !is_later(known.at)) {
            pending.last = Some(used);
        }
    }

    /// Counts the outcome of a request with `key` in the hour of `at`.
    pub fn count(&self, key: &Key, outcome: UsageOutcome, at: DateTime<Utc>) {
        let hour = at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at);
        let mut pending = self.pending.entry(key.id).or_default();
        pending.hours.entry(hour).or_default()[outcome as usize] += 1;
    }

    /// The last use of key `id` that is not in the database yet.
    pub fn last(&self, id: i64) -> Option<Use> {
        self.pending.get(&id)?.last
    }

    /// Number of keys with usage to write.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Returns whether there is no usage to write.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Writes pending usage to the database. Usage that cannot be written stays pending.
    pub async fn flush(&self, db: &Db) -> sqlx::Result<()> {
        let (usage, db) = (self.clone(), db.clone());
        // Spawned, so that a cancelled request cannot stop it between the commit and the removal of
        // the written counts: those would be written twice.
        let flushed = tokio::spawn(async move { usage.write_all(&db).await }).await;
        flushed.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn write_all(&self, db: &Db) -> sqlx::Result<()> {
        let _guard = self.flushing.lock().await;
        let mut pending: Vec<(i64, Pending)> =
            self.pending.iter().map(|entry| (*entry.key(), entry.value().clone())).collect();
        // Every process updates rows in the order of their ids, which prevents deadlocks.
        pending.sort_unstable_by_key(|(id, _)| *id);
        for batch in pending.chunks(BATCH) {
            let mut tx = db.begin().await?;
            for (id, pending) in batch {
                write(&mut tx, *id, pending).await?;
            }
            tx.commit().await?;
            for (id, written) in batch {
                self.forget(*id, written);
            }
        }
        Ok(())
    }

    /// Subtracts the written usage. Usage recorded during the write stays pending.
    fn forget(&self, id: i64, written: &Pending) {
        self.pending.remove_if_mut(&id, |_, pending| {
            for (hour, counts) in &written.hours {
                if let Some(now) = pending.hours.get_mut(hour) {
                    now.iter_mut().zip(counts).for_each(|(now, written)| *now -= written);
                }
            }
            pending.hours.retain(|_, counts| counts.iter().any(|count| *count != 0));
            if pending.last == written.last {
                pending.last = None;
            }
            pending.hours.is_empty() && pending.last.is_none()
        });
    }
}

async fn write(tx: &mut Tx, id: i64, pending: &Pending) -> sqlx::Result<()> {
    // The key's row is locked before its counts, in the same order as by a deletion: any other
    // order could deadlock.
    match pending.last {
        Some(last) => repository::write_key_use(tx, id, last.at, last.ip).await?,
        None => repository::lock_key(tx, id).await?,
    }
    for (hour, counts) in &pending.hours {
        repository::add_key_usage(tx, id, *hour, counts).await?;
    }
    Ok(())
}
