//! When, from where, how often and how well each key was used: kept in memory, written in batches.

use super::Key;
use crate::db::{Db, Tx, query};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use dashmap::DashMap;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Keys written in one transaction, so that other writers get their turn.
const BATCH: usize = 500;

/// How a request with a key went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was let through.
    Ok,
    /// The key lacked a scope.
    DeniedScope,
    /// It came from an address that is not on the key's list.
    DeniedAddress,
    /// The key's limit was used up.
    RateLimited,
    /// The key's time was over.
    Expired,
}

/// A use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// When.
    pub at: DateTime<Utc>,
    /// From where, if that is known.
    pub ip: Option<IpAddr>,
}

/// Requests of one key in one hour, by [`Outcome`].
type Counts = [i64; 5];

#[derive(Clone, Debug, Default)]
struct Pending {
    last: Option<Use>,
    hours: BTreeMap<DateTime<Utc>, Counts>,
}

/// The uses that are not in the database yet. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pending: Arc<DashMap<i64, Pending>>,
    /// Two who wrote the same would count it twice.
    flushing: Arc<Mutex<()>>,
}

impl Usage {
    /// Remembers a use of `key`, which was good, unless a later one is known.
    pub fn note(&self, key: &Key, used: Use) {
        let mut pending = self.pending.entry(key.id).or_default();
        if pending.last.is_none_or(|known| known.at < used.at) {
            pending.last = Some(used);
        }
    }

    /// Counts how a request with `key` went that came at `at`.
    pub fn count(&self, key: &Key, outcome: Outcome, at: DateTime<Utc>) {
        let hour = at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at);
        let mut pending = self.pending.entry(key.id).or_default();
        pending.hours.entry(hour).or_default()[outcome as usize] += 1;
    }

    /// The last use of key `id` that the database does not know of yet.
    pub fn last(&self, id: i64) -> Option<Use> {
        self.pending.get(&id)?.last
    }

    /// Keys with uses that wait.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Writes what waits. What could not be written waits on.
    pub async fn flush(&self, db: &Db) -> sqlx::Result<()> {
        let (usage, db) = (self.clone(), db.clone());
        // In a task of its own: a reader that hangs up between the commit and taking off what was
        // written would have it written twice.
        let flushed = tokio::spawn(async move { usage.write_all(&db).await }).await;
        flushed.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn write_all(&self, db: &Db) -> sqlx::Result<()> {
        let _turn = self.flushing.lock().await;
        let mut waiting: Vec<(i64, Pending)> =
            self.pending.iter().map(|entry| (*entry.key(), entry.value().clone())).collect();
        // One order for every process: two batches must not wait for each other's rows.
        waiting.sort_unstable_by_key(|(id, _)| *id);
        for batch in waiting.chunks(BATCH) {
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

    /// Takes off what was written; what came meanwhile stays.
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
    // Both lock the key's row before its counts, as those do who delete it: in another order each
    // could wait for the other. The last use only ever goes forward.
    const LAST: &str = "UPDATE api_keys SET \
        last_used_ip = CASE WHEN last_used_at >= $2 THEN last_used_ip ELSE $3 END, \
        last_used_at = CASE WHEN last_used_at >= $2 THEN last_used_at ELSE $2 END WHERE id = $1";
    const LOCK: &str = "UPDATE api_keys SET last_used_at = last_used_at WHERE id = $1";
    // Nothing is written of a key that was deleted meanwhile.
    const COUNTS: &str = "INSERT INTO api_key_usage \
        (api_key_id, hour, ok, denied_scope, denied_address, rate_limited, expired) \
        SELECT $1, $2, $3, $4, $5, $6, $7 WHERE EXISTS (SELECT 1 FROM api_keys WHERE id = $1) \
        ON CONFLICT (api_key_id, hour) DO UPDATE SET ok = api_key_usage.ok + excluded.ok, \
        denied_scope = api_key_usage.denied_scope + excluded.denied_scope, \
        denied_address = api_key_usage.denied_address + excluded.denied_address, \
        rate_limited = api_key_usage.rate_limited + excluded.rate_limited, \
        expired = api_key_usage.expired + excluded.expired";
    match pending.last {
        Some(last) => {
            let statement = query(&mut *tx, LAST).bind(id).bind(last.at);
            statement.bind(last.ip.map(|ip| ip.to_string())).execute().await?
        }
        None => query(&mut *tx, LOCK).bind(id).execute().await?,
    };
    for (hour, counts) in &pending.hours {
        let statement = query(&mut *tx, COUNTS).bind(id).bind(*hour);
        counts.iter().fold(statement, |s, count| s.bind(*count)).execute().await?;
    }
    Ok(())
}
