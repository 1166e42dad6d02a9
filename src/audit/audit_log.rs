//! Writes entries to the audit log and verifies it.

use super::anchor::Anchor;
use super::chain::{GENESIS_HASH, Row};
use super::keys::AuditKeys;
use super::origin::{Action, Origin, PerformedBy, Subject};
use super::repository::{self, BATCH, Head};
use super::verify::{self, Verification};
use crate::core::transient_error::NOT_CURRENT_AUDIT_KEY;
use crate::db::{Db, Executor, Tx};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// How long a starting server waits for another one to add older entries to the chain.
const ADOPTION: Duration = Duration::from_secs(5);

/// Writes and verifies the audit log. Clones share all state.
#[derive(Clone, Debug)]
pub struct Audit {
    pub(super) keys: Arc<AuditKeys>,
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
        let head = repository::lock_head(tx).await?;
        self.require_current_key(&mut *tx).await?;
        self.append(tx, head, origin, at, operations).await
    }

    /// Appends entries to the chain, whose `head` is locked.
    pub(super) async fn append(
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
            repository::insert(tx, row).await?;
        }
        repository::set_head(tx, seq, hash).await
    }

    /// Returns whether `AUDIT_KEY` signed the last entry; true if there is no entry.
    pub async fn has_current_key(&self, on: impl Into<Executor<'_>>) -> sqlx::Result<bool> {
        Ok(repository::last_key(on).await?.is_none_or(|id| id == i64::from(self.keys.current.id)))
    }

    /// Fails if the chain has changed to another key since this process started: an entry that the
    /// earlier key signs would not verify.
    async fn require_current_key(&self, on: impl Into<Executor<'_>>) -> sqlx::Result<()> {
        if self.has_current_key(on).await? {
            return Ok(());
        }
        Err(sqlx::Error::Configuration(NOT_CURRENT_AUDIT_KEY.into()))
    }

    /// Adds entries that are older than the chain to it, unchanged, and records this as an entry.
    /// Does nothing if the chain is not empty. Call it only right after a migration or a review of
    /// the entries, as write access to the database suffices to insert entries that look older.
    pub async fn adopt(&self, db: &Db, now: DateTime<Utc>) -> sqlx::Result<()> {
        if !repository::waits_for_adoption(db).await? {
            return Ok(());
        }
        let mut tx = db.begin().await?;
        let mut head = repository::lock_head(&mut tx).await?;
        if !repository::waits_for_adoption(&mut tx).await? {
            return Ok(());
        }
        let mut hash = GENESIS_HASH;
        loop {
            let rows = repository::rows_from(&mut tx, head.seq + 1, BATCH).await?;
            let Some(last) = rows.last().map(|row| row.seq) else { break };
            for mut row in rows {
                hash = row.chain(&self.keys.current, &hash).map_err(encode)?;
                repository::set_hash(&mut tx, &row).await?;
            }
            head.seq = last;
        }
        repository::set_head(&mut tx, head.seq, hash).await?;
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
        while repository::waits_for_adoption(db).await? {
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
        Ok(repository::last_key(db).await?.is_none_or(|id| self.keys.find(id).is_some()))
    }

    /// The head of the chain. Store it elsewhere, to detect a truncation of the chain before it.
    pub async fn anchor(&self, db: &Db) -> sqlx::Result<Anchor> {
        end(db).await
    }

    /// Returns whether the chain has the hash of `anchor` at its position, or retention has removed
    /// that entry. `false` means that the chain was truncated or replaced.
    pub async fn has(&self, db: &Db, anchor: &Anchor) -> sqlx::Result<bool> {
        if anchor.seq == 0 || repository::has_entry(db, anchor).await? {
            return Ok(true);
        }
        Ok(repository::checkpoint(db).await?.is_some_and(|removed| removed.seq >= anchor.seq))
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

/// The head of the chain as stored in `db`, not verified; needs no audit key.
pub async fn end(db: &Db) -> sqlx::Result<Anchor> {
    repository::head(db).await?.anchor()
}

fn encode(error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::Encode(error.into())
}
