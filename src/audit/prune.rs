//! Removes the beginning of the chain when it is old.
//!
//! What is left begins after a checkpoint: a row of the chain itself, and so signed as every other,
//! that says up to which place and hash rows were removed. Verifying goes on from there. Rows that
//! anybody else takes out are missing, as before.

use super::chain::Hash;
use super::verify::{self, Fault};
use super::{Action, Anchor, Audit, Origin, Subject, lock_head};
use crate::core::clock::Timestamp;
use crate::db::{Db, On, Tx, query};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// Most rows removed in one transaction.
const BATCH: i64 = 10_000;

/// How removing old rows went.
#[derive(Debug)]
pub enum Pruned {
    /// So many are gone.
    Rows(u64),
    /// None, because the chain is broken: it is evidence now.
    Broken(Fault),
}

impl Audit {
    /// Removes rows from the beginning of the chain on, as long as they are older than `before`.
    /// None, if the chain is broken.
    pub async fn prune(
        &self,
        db: &Db,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> sqlx::Result<Pruned> {
        if !begins_before(db, before).await? {
            return Ok(Pruned::Rows(0));
        }
        // Whoever changed a row must not have the proof removed.
        if let Some(fault) = verify::verify(&self.keys, db, None).await?.fault() {
            return Ok(Pruned::Broken(fault));
        }
        let mut rows = 0;
        loop {
            let mut tx = db.begin_long().await?;
            let removed = self.prune_some(&mut tx, before, now).await?;
            tx.commit().await?;
            rows += removed;
            if removed == 0 {
                return Ok(Pruned::Rows(rows));
            }
        }
    }

    async fn prune_some(
        &self,
        tx: &mut Tx,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> sqlx::Result<u64> {
        // Locked first, for once: nobody may append between the look and the checkpoint.
        lock_head(tx).await?;
        let Some(through) = last_before(tx, before).await? else { return Ok(0) };
        let rows = delete_through(tx, through.seq).await?;
        let details = json!({ "through": through, "rows": rows, "before": Timestamp(before) });
        let (by, subject) = (&Origin::SERVER, Subject::Installation);
        self.record(tx, by, Action::PruneTrail, subject, &details, now).await?;
        Ok(rows)
    }
}

/// The newest checkpoint: what is before it was removed. Whether it is genuine shows when it is
/// verified in its turn.
pub(super) async fn checkpoint(on: impl Into<On<'_>>) -> sqlx::Result<Option<Anchor>> {
    const SQL: &str = "SELECT details FROM api_key_audit_logs WHERE action = $1 \
                       ORDER BY seq DESC LIMIT 1";
    let statement = query(on, SQL).bind(Action::PruneTrail.as_str());
    let row: Option<(String,)> = statement.optional().await?;
    let details = row.and_then(|(details,)| serde_json::from_str::<Value>(&details).ok());
    Ok(details.and_then(|details| details.get("through")?.as_str()?.parse().ok()))
}

/// Whether the first row is older than `before`.
async fn begins_before(on: impl Into<On<'_>>, before: DateTime<Utc>) -> sqlx::Result<bool> {
    const SQL: &str = "SELECT seq FROM api_key_audit_logs WHERE timestamp < $1 \
        AND seq = (SELECT MIN(seq) FROM api_key_audit_logs)";
    Ok(query(on, SQL).bind(before).optional::<(i64,)>().await?.is_some())
}

/// The last of the rows from the first on that are all older than `before`, or of as many as are
/// removed at once.
async fn last_before(tx: &mut Tx, before: DateTime<Utc>) -> sqlx::Result<Option<Anchor>> {
    // Places have no gaps; clocks may have gone back.
    const SQL: &str = "SELECT seq, hash FROM api_key_audit_logs WHERE seq < COALESCE( \
        (SELECT seq FROM (SELECT seq, timestamp FROM api_key_audit_logs ORDER BY seq LIMIT $2) f \
         WHERE timestamp >= $1 ORDER BY seq LIMIT 1), \
        (SELECT MIN(seq) FROM api_key_audit_logs) + $2) ORDER BY seq DESC LIMIT 1";
    let row: Option<(i64, Vec<u8>)> = query(tx, SQL).bind(before).bind(BATCH).optional().await?;
    let Some((seq, hash)) = row else { return Ok(None) };
    let hash = Hash::try_from(hash);
    let hash =
        hash.map_err(|_| sqlx::Error::Decode("a row of the audit chain has no hash".into()))?;
    Ok(Some(Anchor { seq, hash }))
}

async fn delete_through(tx: &mut Tx, seq: i64) -> sqlx::Result<u64> {
    const SQL: &str = "DELETE FROM api_key_audit_logs WHERE seq <= $1";
    query(tx, SQL).bind(seq).execute().await
}
