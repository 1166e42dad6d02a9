//! The audit log: operations on API keys and on the rights of users, with their caller and origin.
//!
//! The entries form a hash chain: the HMAC of each covers its content and the HMAC of the previous
//! entry. Verification therefore detects entries that were changed, moved, inserted or deleted. An
//! attacker who can write the database and has the audit key can forge the whole chain; only an
//! anchor that is stored elsewhere reveals that.

mod anchors;
mod chain;
mod export;
mod key_change;
mod keys;
mod origin;
mod prune;
mod replay;
mod time;
mod verify;

pub use anchors::{append_anchor, newest_anchor};
pub use chain::Row;
pub(crate) use chain::columns;
pub use export::ExportedEntry;
pub use key_change::KeyChange;
pub use keys::{AuditKeyError, AuditKeys};
pub use origin::{Action, Origin, PerformedBy, Subject};
pub use prune::Pruned;
pub use replay::KeyDifference;
pub use time::Time;
pub use verify::{Anchor, AnchorError, Fault, Verification};

use crate::db::{Db, Executor, Tx, query};
use chain::{GENESIS_HASH, Hash};
use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// How long a starting server waits for another one to add older entries to the chain.
const ADOPTION: Duration = Duration::from_secs(5);
/// Entries read per statement.
const BATCH: i64 = 500;

/// Writes and verifies the audit log. Clones share all state.
#[derive(Clone, Debug)]
pub struct Audit {
    keys: Arc<AuditKeys>,
    /// The last verification. Concurrent requests share one, as it takes a while.
    verifying: Arc<Mutex<Option<Run>>>,
}

/// A completed verification of the chain.
#[derive(Debug)]
struct Run {
    began: Instant,
    anchor: Option<Anchor>,
    found: Verification,
}

/// An operation to record as an audit entry.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'d> {
    /// The action.
    pub action: Action,
    /// The subject of the action.
    pub subject: Subject<'d>,
    /// Details that depend on the action. Must not contain secrets.
    pub details: &'d Value,
}

/// The head of the chain: the position and hash of its last entry.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
struct Head {
    seq: i64,
    hash: Vec<u8>,
}

impl Audit {
    /// Creates an audit log whose entries are signed with `keys`.
    pub fn new(keys: AuditKeys) -> Self {
        Self { keys: Arc::new(keys), verifying: Arc::default() }
    }

    /// Records that `origin` performed `action` on `subject`, in the transaction of the operation:
    /// the entry commits or rolls back with the change. `details` must not contain secrets.
    ///
    /// Locks the head of the chain until `tx` ends. Call it last, so that no transaction waits for
    /// another lock while it holds this one.
    pub async fn record(
        &self,
        tx: &mut Tx,
        origin: &Origin,
        action: Action,
        subject: Subject<'_>,
        details: &Value,
        at: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        self.record_all(tx, origin, at, &[Operation { action, subject, details }]).await
    }

    /// Records an operation of an API key on users' data, like [`Audit::record`]. Does nothing if
    /// `by` is `None`: operations of users on their own data are not recorded.
    pub async fn record_of_key(
        &self,
        tx: &mut Tx,
        by: Option<&Origin>,
        action: Action,
        details: &Value,
        at: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        let Some(by) = by else { return Ok(()) };
        self.record(tx, by, action, Subject::User, details, at).await
    }

    /// Records several operations in order, like [`Audit::record`].
    pub async fn record_all(
        &self,
        tx: &mut Tx,
        origin: &Origin,
        at: DateTime<Utc>,
        operations: &[Operation<'_>],
    ) -> sqlx::Result<()> {
        if operations.is_empty() {
            return Ok(());
        }
        let head = lock_head(tx).await?;
        self.require_current_key(&mut *tx).await?;
        self.append(tx, head, origin, at, operations).await
    }

    /// Appends entries to the chain, whose `head` is locked.
    async fn append(
        &self,
        tx: &mut Tx,
        head: Head,
        origin: &Origin,
        at: DateTime<Utc>,
        operations: &[Operation<'_>],
    ) -> sqlx::Result<()> {
        let (mut seq, mut hash) = (head.seq, head.hash()?);
        for Operation { action, subject, details } in operations {
            let (api_key_id, api_key_name) = match *subject {
                Subject::Key(id, name) => (Some(id), Some(name.to_owned())),
                Subject::User | Subject::Installation => (None, None),
            };
            let (key_id, key_name) = match &origin.by {
                PerformedBy::Key { id, name } => (Some(*id), Some(name.to_string())),
                _ => (None, None),
            };
            seq += 1;
            let mut row = Row {
                seq,
                api_key_id,
                api_key_name,
                action: action.as_str().to_owned(),
                performed_by: origin.by.as_str().to_owned(),
                performed_by_key_id: key_id,
                performed_by_key_name: key_name,
                performed_by_ip: origin.ip.map(|ip| ip.to_string()),
                request_id: origin.request_id.as_ref().map(ToString::to_string),
                details: details.to_string(),
                timestamp: at.into(),
                hash_key_id: None,
                payload: None,
                hash: None,
            };
            hash = row.chain(&self.keys.current, &hash).map_err(encode)?;
            insert(tx, row).await?;
        }
        set_head(tx, seq, hash).await
    }

    /// Adds entries that are older than the chain to it, unchanged, and records this as an entry.
    /// Does nothing if the chain is not empty. Call it only right after a migration or a review of
    /// the entries, as write access to the database suffices to insert entries that look older.
    pub async fn adopt(&self, db: &Db, now: DateTime<Utc>) -> sqlx::Result<()> {
        if !waits_for_adoption(db).await? {
            return Ok(());
        }
        let mut tx = db.begin().await?;
        let mut head = lock_head(&mut tx).await?;
        if !waits_for_adoption(&mut tx).await? {
            return Ok(());
        }
        let mut hash = GENESIS_HASH;
        loop {
            let rows = rows_from(&mut tx, head.seq + 1, BATCH).await?;
            let Some(last) = rows.last().map(|row| row.seq) else { break };
            for mut row in rows {
                hash = row.chain(&self.keys.current, &hash).map_err(encode)?;
                set_hash(&mut tx, &row).await?;
            }
            head.seq = last;
        }
        set_head(&mut tx, head.seq, hash).await?;
        let details = json!({ "rows": head.seq });
        let (server, subject) = (&Origin::SERVER, Subject::Installation);
        self.record(&mut tx, server, Action::AdoptEntries, subject, &details, now).await?;
        tx.commit().await?;
        let rows = head.seq;
        tracing::warn!(
            event = "audit.adopted",
            rows,
            "added earlier entries to the audit chain, unchanged"
        );
        Ok(())
    }

    /// Returns whether older entries are still outside the chain after a wait of 5 seconds. A
    /// server that has just migrated them adds them within that time.
    pub async fn has_unchained_entries(&self, db: &Db) -> sqlx::Result<bool> {
        let end = Instant::now() + ADOPTION;
        while waits_for_adoption(db).await? {
            if Instant::now() >= end {
                return Ok(true);
            }
            sleep(ADOPTION / 50).await;
        }
        Ok(false)
    }

    /// Returns whether the key that signed the last entry is configured: without it, its entries
    /// cannot be verified.
    pub async fn has_last_key(&self, db: &Db) -> sqlx::Result<bool> {
        const SQL: &str = "SELECT hash_key_id FROM api_key_audit_logs ORDER BY seq DESC LIMIT 1";
        let last: Option<(Option<i64>,)> = query(db, SQL).optional().await?;
        Ok(last.and_then(|(id,)| id).is_none_or(|id| self.keys.find(id).is_some()))
    }

    /// The head of the chain. Store it elsewhere, to detect a truncation of the chain before it.
    pub async fn anchor(&self, db: &Db) -> sqlx::Result<Anchor> {
        end(db).await
    }

    /// Returns whether the chain has the hash of `anchor` at its position, or retention has removed
    /// that entry. `false` means that the chain was truncated or replaced.
    pub async fn has(&self, db: &Db, anchor: &Anchor) -> sqlx::Result<bool> {
        const SQL: &str = "SELECT seq FROM api_key_audit_logs WHERE seq = $1 AND hash = $2";
        let statement = query(db, SQL).bind(anchor.seq).bind(anchor.hash.to_vec());
        if anchor.seq == 0 || statement.optional::<(i64,)>().await?.is_some() {
            return Ok(true);
        }
        Ok(prune::checkpoint(db).await?.is_some_and(|removed| removed.seq >= anchor.seq))
    }

    /// Recomputes the whole chain and compares it with `anchor`, if given. Reports a broken chain,
    /// never repairs it.
    pub async fn verify(&self, db: &Db, anchor: Option<&Anchor>) -> sqlx::Result<Verification> {
        let requested = Instant::now();
        let mut last = self.verifying.lock().await;
        // A run that began after this call covers all entries that it must cover.
        if let Some(run) = &*last
            && run.began >= requested
            && run.anchor.as_ref() == anchor
        {
            return Ok(run.found.clone());
        }
        let began = Instant::now();
        let found = verify::verify(&self.keys, db, anchor).await?;
        *last = Some(Run { began, anchor: anchor.cloned(), found: found.clone() });
        Ok(found)
    }
}

impl Head {
    fn anchor(&self) -> sqlx::Result<Anchor> {
        Ok(Anchor { seq: self.seq, hash: self.hash()? })
    }

    fn hash(&self) -> sqlx::Result<Hash> {
        let length = |_| sqlx::Error::Decode("the audit chain's head has no valid hash".into());
        self.hash.as_slice().try_into().map_err(length)
    }
}

/// The head of the chain as stored in `db`, not verified; needs no audit key.
pub async fn end(db: &Db) -> sqlx::Result<Anchor> {
    head(db).await?.anchor()
}

fn encode(error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::Encode(error.into())
}

async fn head(on: impl Into<Executor<'_>>) -> sqlx::Result<Head> {
    query(on, "SELECT seq, hash FROM audit_head WHERE id = 1").one().await
}

/// The head, locked against other writers until `tx` ends.
async fn lock_head(tx: &mut Tx) -> sqlx::Result<Head> {
    const SQL: &str = "UPDATE audit_head SET seq = seq WHERE id = 1 RETURNING seq, hash";
    query(tx, SQL).one().await
}

async fn set_head(tx: &mut Tx, seq: i64, hash: Hash) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1";
    let updated = query(tx, SQL).bind(seq).bind(hash.to_vec()).execute().await?;
    if updated == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

async fn insert(tx: &mut Tx, row: Row) -> sqlx::Result<()> {
    const SQL: &str = concat!(
        "INSERT INTO api_key_audit_logs (",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
    );
    let inserted = query(tx, SQL)
        .bind(row.seq)
        .bind(row.api_key_id)
        .bind(row.api_key_name)
        .bind(row.action)
        .bind(row.performed_by)
        .bind(row.performed_by_key_id)
        .bind(row.performed_by_key_name)
        .bind(row.performed_by_ip)
        .bind(row.request_id)
        .bind(row.details)
        .bind(row.timestamp.at)
        .bind(row.hash_key_id)
        .bind(row.payload)
        .bind(row.hash)
        .execute()
        .await?;
    // A trigger could suppress the insert without an error.
    if inserted == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// Returns whether there are entries and none of them is in the chain.
async fn waits_for_adoption(on: impl Into<Executor<'_>>) -> sqlx::Result<bool> {
    const SQL: &str = "SELECT h.seq FROM audit_head h WHERE h.id = 1 AND h.seq = 0 \
        AND EXISTS (SELECT 1 FROM api_key_audit_logs) \
        AND NOT EXISTS (SELECT 1 FROM api_key_audit_logs WHERE hash IS NOT NULL)";
    Ok(query(on, SQL).optional::<(i64,)>().await?.is_some())
}

/// At most `limit` entries from position `seq` on, in order.
async fn rows_from(on: impl Into<Executor<'_>>, seq: i64, limit: i64) -> sqlx::Result<Vec<Row>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM api_key_audit_logs WHERE seq >= $1 ORDER BY seq LIMIT $2"
    );
    query(on, SQL).bind(seq).bind(limit).all().await
}

/// Stores the hash of an entry that had none, and its time as hashed.
async fn set_hash(tx: &mut Tx, row: &Row) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE api_key_audit_logs \
                       SET timestamp = $2, hash_key_id = $3, payload = $4, hash = $5 WHERE seq = $1";
    let statement = query(tx, SQL).bind(row.seq).bind(row.timestamp.at.trunc_subsecs(6));
    let statement = statement.bind(row.hash_key_id).bind(row.payload.clone());
    statement.bind(row.hash.clone()).execute().await?;
    Ok(())
}
