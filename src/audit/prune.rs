//! Retention: removes old entries from the beginning of the chain.
//!
//! Each removal appends a checkpoint, a signed entry with the position and hash of the last removed
//! entry. Verification starts after the newest checkpoint. Entries deleted in any other way still
//! count as missing.

use super::audit_log::Audit;
use super::origin::{Action, Origin, Subject};
use super::repository;
use super::verify::{self, Fault};
use crate::core::clock::Timestamp;
use crate::db::{Db, Tx};
use chrono::{DateTime, Utc};
use serde_json::json;

/// Maximum number of entries removed in one transaction.
const BATCH: i64 = 10_000;

/// The result of a retention run.
#[derive(Debug)]
pub enum Pruned {
    /// The number of removed entries.
    Rows(u64),
    /// Nothing was removed: the chain is broken, and its entries are evidence.
    Broken(Fault),
}

impl Audit {
    /// Removes the entries at the beginning of the chain that are older than `before`. Removes
    /// nothing if the chain is broken.
    pub async fn prune(
        &self,
        db: &Db,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> sqlx::Result<Pruned> {
        if !repository::begins_before(db, before).await? {
            return Ok(Pruned::Rows(0));
        }
        // Retention must not remove the evidence of a manipulation.
        if let Some(fault) = verify::verify(&self.keys, db, None).await?.fault() {
            return Ok(Pruned::Broken(fault));
        }
        let mut rows = 0;
        loop {
            let mut tx = db.begin_long().await?;
            let removed = self.prune_batch(&mut tx, before, now).await?;
            tx.commit().await?;
            rows += removed;
            if removed == 0 {
                return Ok(Pruned::Rows(rows));
            }
        }
    }

    async fn prune_batch(
        &self,
        tx: &mut Tx,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> sqlx::Result<u64> {
        // Lock the head first, unlike elsewhere: no entry may be appended between the query and the
        // checkpoint.
        repository::lock_head(tx).await?;
        let Some(through) = repository::last_before(tx, before, BATCH).await? else {
            return Ok(0);
        };
        let rows = repository::delete_through(tx, through.seq).await?;
        let details = json!({ "through": through, "rows": rows, "before": Timestamp(before) });
        let (by, subject) = (&Origin::SERVER, Subject::Installation);
        self.record(tx, by, Action::PruneEntries, subject, &details, now).await?;
        Ok(rows)
    }
}
