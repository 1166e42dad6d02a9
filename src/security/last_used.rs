//! When and from where each key was last used: kept in memory, written in batches.

use crate::db::{Db, query};
use chrono::{DateTime, Utc};
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Rows written in one transaction, so that other writers get their turn.
const BATCH: usize = 500;

/// A use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// When.
    pub at: DateTime<Utc>,
    /// From where.
    pub ip: IpAddr,
}

/// The uses that are not in the database yet. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LastUsed {
    pending: Arc<DashMap<i64, Use>>,
}

impl LastUsed {
    /// Remembers a use of key `id`, unless a later one is known.
    pub fn note(&self, id: i64, used: Use) {
        self.pending
            .entry(id)
            .and_modify(|known| {
                if known.at < used.at {
                    *known = used;
                }
            })
            .or_insert(used);
    }

    /// The use of key `id` that the database does not know of yet.
    pub fn pending(&self, id: i64) -> Option<Use> {
        self.pending.get(&id).map(|entry| *entry)
    }

    /// Uses that wait.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Writes what waits. What could not be written waits on.
    pub async fn flush(&self, db: &Db) -> sqlx::Result<()> {
        const SQL: &str = "UPDATE api_keys SET last_used_at = $2, last_used_ip = $3 \
                           WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
        let mut waiting: Vec<(i64, Use)> =
            self.pending.iter().map(|e| (*e.key(), *e.value())).collect();
        // One order for every process: two batches must not wait for each other's rows.
        waiting.sort_unstable_by_key(|(id, _)| *id);
        for batch in waiting.chunks(BATCH) {
            let mut tx = db.begin().await?;
            for (id, used) in batch {
                let ip = used.ip.to_string();
                query(&mut tx, SQL).bind(*id).bind(used.at).bind(ip).execute().await?;
            }
            tx.commit().await?;
            for (id, written) in batch {
                self.pending.remove_if(id, |_, now| now == written);
            }
        }
        Ok(())
    }
}
