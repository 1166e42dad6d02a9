//! Retention: removes old entries from the beginning of the chain.
//!
//! Each removal appends a checkpoint, a signed entry with the position and hash of the last removed
//! entry. Verification starts after the newest checkpoint. Entries deleted in any other way still
//! count as missing.

use super::chain::Hash;
use super::verify::{self, Fault};
use super::{Action, Anchor, Audit, Origin, Subject, lock_head};
use crate::core::clock::Timestamp;
use crate::db::{Db, Executor, Tx, query};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

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
        if !begins_before(db, before).await? {
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
        lock_head(tx).await?;
        let Some(through) = last_before(tx, before).await? else { return Ok(0) };
        let rows = delete_through(tx, through.seq).await?;
        let details = json!({ "through": through, "rows": rows, "before": Timestamp(before) });
        let (by, subject) = (&Origin::SERVER, Subject::Installation);
        self.record(tx, by, Action::PruneEntries, subject, &details, now).await?;
        Ok(rows)
    }
}

/// The last removed entry according to the newest checkpoint. It is not verified here: verification
/// checks the checkpoint like any other entry.
pub(super) async fn checkpoint(on: impl Into<Executor<'_>>) -> sqlx::Result<Option<Anchor>> {
    const SQL: &str = "SELECT details FROM api_key_audit_logs WHERE action = $1 \
                       ORDER BY seq DESC LIMIT 1";
    let statement = query(on, SQL).bind(Action::PruneEntries.as_str());
    let row: Option<(String,)> = statement.optional().await?;
    let details = row.and_then(|(details,)| serde_json::from_str::<Value>(&details).ok());
    Ok(details.and_then(|details| details.get("through")?.as_str()?.parse().ok()))
}

/// Returns whether the first entry is older than `before`.
async fn begins_before(on: impl Into<Executor<'_>>, before: DateTime<Utc>) -> sqlx::Result<bool> {
    const SQL: &str = "SELECT seq FROM api_key_audit_logs WHERE timestamp < $1 \
        AND seq = (SELECT MIN(seq) FROM api_key_audit_logs)";
    Ok(query(on, SQL).bind(before).optional::<(i64,)>().await?.is_some())
}

/// The last entry of the leading run of entries older than `before`, limited to one batch.
async fn last_before(tx: &mut Tx, before: DateTime<Utc>) -> sqlx::Result<Option<Anchor>> {
    // Positions have no gaps, but a clock may have been set back: times may not increase.
    const SQL: &str = "SELECT seq, hash FROM api_key_audit_logs WHERE seq < COALESCE( \
        (SELECT seq FROM (SELECT seq, timestamp FROM api_key_audit_logs ORDER BY seq LIMIT $2) f \
         WHERE timestamp >= $1 ORDER BY seq LIMIT 1), \
        (SELECT MIN(seq) FROM api_key_audit_logs) + $2) ORDER BY seq DESC LIMIT 1";
    let row: Option<(i64, Vec<u8>)> = query(tx, SQL).bind(before).bind(BATCH).optional().await?;
    let Some((seq, hash)) = row else { return Ok(None) };
    let hash = Hash::try_from(hash);
    let hash = hash.map_err(|_| sqlx::Error::Decode("an audit entry has no valid hash".into()))?;
    Ok(Some(Anchor { seq, hash }))
}

async fn delete_through(tx: &mut Tx, seq: i64) -> sqlx::Result<u64> {
    const SQL: &str = "DELETE FROM api_key_audit_logs WHERE seq <= $1";
    query(tx, SQL).bind(seq).execute().await
}
