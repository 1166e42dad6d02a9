//! The last use of each session, collected in memory and written in batches.

use super::repository;
use super::session::SignedIn;
use crate::db::Db;
use chrono::{DateTime, Utc};
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Sessions written per transaction. A small batch keeps other writers from waiting long.
const BATCH: usize = 500;

/// The time and address of the last use of each session, collected in memory and written in
/// batches. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SessionUses(Arc<DashMap<i64, (DateTime<Utc>, IpAddr)>>);

impl SessionUses {
    /// Records a use of the session of `user`.
    pub fn note(&self, user: &SignedIn, at: DateTime<Utc>) {
        self.0.insert(user.session.id, (at, user.ip));
    }

    /// The last use of session `id` that is not in the database yet.
    pub fn last(&self, id: i64) -> Option<(DateTime<Utc>, IpAddr)> {
        self.0.get(&id).map(|used| *used)
    }

    /// Writes pending uses to the database. Uses that cannot be written stay pending.
    pub async fn flush(&self, db: &Db) -> sqlx::Result<()> {
        let mut pending: Vec<_> = self.0.iter().map(|entry| (*entry.key(), *entry)).collect();
        if pending.is_empty() {
            return Ok(());
        }
        // Every process updates rows in the order of their ids, which prevents deadlocks.
        pending.sort_unstable_by_key(|(id, _)| *id);
        for batch in pending.chunks(BATCH) {
            let mut tx = db.begin().await?;
            for (id, (at, ip)) in batch {
                repository::write_session_use(&mut tx, *id, *at, *ip).await?;
            }
            tx.commit().await?;
            for (id, written) in batch {
                self.0.remove_if(id, |_, used| used == written);
            }
        }
        Ok(())
    }
}
