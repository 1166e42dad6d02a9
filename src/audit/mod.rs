//! The audit trail: what was done to keys and to the rights of users, by whom, from where.
//!
//! Its rows form a chain: each has an HMAC over its content and the HMAC of the row before, so that
//! a row that was changed, moved, put in or taken out shows. Who can write the database and has the
//! key can forge the whole chain: it is evidence only against anchors that are kept elsewhere.

mod anchors;
mod chain;
mod export;
mod keys;
mod origin;
mod prune;
mod replay;
mod succession;
mod time;
mod verify;

pub use anchors::{append_anchor, newest_anchor};
pub use chain::Row;
pub(crate) use chain::columns;
pub use export::ExportedEntry;
pub use keys::{AuditKeyError, AuditKeys};
pub use origin::{Action, Origin, PerformedBy, Subject};
pub use prune::Pruned;
pub use replay::KeyDifference;
pub use succession::Succession;
pub use time::Time;
pub use verify::{Anchor, AnchorError, Fault, Verification};

use crate::db::{Db, On, Tx, query};
use chain::{BEGINNING, Hash};
use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// How long a server that starts waits for another one to take older rows into the chain.
const ADOPTION: Duration = Duration::from_secs(5);
/// Rows taken at a time, where many are.
const BATCH: i64 = 500;

/// Writes the trail, and verifies it. Clones share everything.
#[derive(Clone, Debug)]
pub struct Audit {
    keys: Arc<AuditKeys>,
    /// Verifying takes a while: those who ask at the same time share one run.
    verifying: Arc<Mutex<Option<Run>>>,
}

/// The last time the chain was verified.
#[derive(Debug)]
struct Run {
    began: Instant,
    anchor: Option<Anchor>,
    found: Verification,
}

/// Something that was done.
#[derive(Clone, Copy, Debug)]
pub struct Deed<'d> {
    /// What.
    pub action: Action,
    /// To what.
    pub subject: Subject<'d>,
    /// More about it; holds no secret.
    pub details: &'d Value,
}

/// The end of the chain.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
struct Head {
    seq: i64,
    hash: Vec<u8>,
}

impl Audit {
    /// A trail made with `keys`.
    pub fn new(keys: AuditKeys) -> Self {
        Self { keys: Arc::new(keys), verifying: Arc::default() }
    }

    /// Records that `origin` did `action` to `subject`, in the transaction that does it: the trail
    /// commits or rolls back with the change. `details` holds no secret.
    ///
    /// Locks the head of the chain until `tx` ends: record last, so that nobody who holds it waits
    /// for anything else.
    pub async fn record(
        &self,
        tx: &mut Tx,
        origin: &Origin,
        action: Action,
        subject: Subject<'_>,
        details: &Value,
        at: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        self.record_all(tx, origin, at, &[Deed { action, subject, details }]).await
    }

    /// The same where `by` is a key, whose operations on users' data are recorded; nothing where it
    /// is a user.
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

    /// Records several deeds, in their order, like [`Audit::record`].
    pub async fn record_all(
        &self,
        tx: &mut Tx,
        origin: &Origin,
        at: DateTime<Utc>,
        deeds: &[Deed<'_>],
    ) -> sqlx::Result<()> {
        if deeds.is_empty() {
            return Ok(());
        }
        let head = lock_head(tx).await?;
        self.require_current_key(&mut *tx).await?;
        self.append(tx, head, origin, at, deeds).await
    }

    /// Appends to the chain, whose `head` is locked.
    async fn append(
        &self,
        tx: &mut Tx,
        head: Head,
        origin: &Origin,
        at: DateTime<Utc>,
        deeds: &[Deed<'_>],
    ) -> sqlx::Result<()> {
        let (mut seq, mut hash) = (head.seq, head.hash()?);
        for Deed { action, subject, details } in deeds {
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

    /// Takes rows from before there was a chain into it, as they stand; a row of its own tells so.
    /// Does nothing once the chain has begun. Only for who has just migrated them, or has looked at
    /// them: whoever can write the database can make rows look so.
    pub async fn adopt(&self, db: &Db, now: DateTime<Utc>) -> sqlx::Result<()> {
        if !waits_for_adoption(db).await? {
            return Ok(());
        }
        let mut tx = db.begin().await?;
        let mut head = lock_head(&mut tx).await?;
        if !waits_for_adoption(&mut tx).await? {
            return Ok(());
        }
        let mut hash = BEGINNING;
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
        self.record(&mut tx, server, Action::AdoptTrail, subject, &details, now).await?;
        tx.commit().await?;
        let rows = head.seq;
        tracing::warn!(
            event = "audit.adopted",
            rows,
            "took earlier rows into the audit chain, as they stood"
        );
        Ok(())
    }

    /// Whether rows wait to be taken into the chain, and nobody does it: not even a server that
    /// has just migrated them and is about to.
    pub async fn is_left_unadopted(&self, db: &Db) -> sqlx::Result<bool> {
        let end = Instant::now() + ADOPTION;
        while waits_for_adoption(db).await? {
            if Instant::now() >= end {
                return Ok(true);
            }
            sleep(ADOPTION / 50).await;
        }
        Ok(false)
    }

    /// Whether the key of the last row is known: the rows of one that is lost cannot be verified.
    pub async fn knows_the_last_key(&self, db: &Db) -> sqlx::Result<bool> {
        const SQL: &str = "SELECT hash_key_id FROM api_key_audit_logs ORDER BY seq DESC LIMIT 1";
        let last: Option<(Option<i64>,)> = query(db, SQL).optional().await?;
        Ok(last.and_then(|(id,)| id).is_none_or(|id| self.keys.find(id).is_some()))
    }

    /// The end of the chain: note it elsewhere, and nobody can cut the chain off before it unseen.
    pub async fn anchor(&self, db: &Db) -> sqlx::Result<Anchor> {
        end(db).await
    }

    /// Whether the chain still has `anchor`'s hash at its place, or goes on from a later one: whether
    /// it was not cut off before it.
    pub async fn has(&self, db: &Db, anchor: &Anchor) -> sqlx::Result<bool> {
        const SQL: &str = "SELECT seq FROM api_key_audit_logs WHERE seq = $1 AND hash = $2";
        let statement = query(db, SQL).bind(anchor.seq).bind(anchor.hash.to_vec());
        if anchor.seq == 0 || statement.optional::<(i64,)>().await?.is_some() {
            return Ok(true);
        }
        Ok(prune::checkpoint(db).await?.is_some_and(|removed| removed.seq >= anchor.seq))
    }

    /// Recomputes the whole chain, and compares it with `anchor`, if there is one. A broken chain
    /// is told of, never repaired.
    pub async fn verify(&self, db: &Db, anchor: Option<&Anchor>) -> sqlx::Result<Verification> {
        let asked = Instant::now();
        let mut last = self.verifying.lock().await;
        // Whoever waited takes what was found meanwhile, instead of walking the same way again.
        if let Some(run) = &*last
            && run.began >= asked
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
        let length = |_| sqlx::Error::Decode("the head of the audit chain is no hash".into());
        self.hash.as_slice().try_into().map_err(length)
    }
}

/// The end of the chain in `db`, as it says; no key is needed for that.
pub async fn end(db: &Db) -> sqlx::Result<Anchor> {
    head(db).await?.anchor()
}

fn encode(error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::Encode(error.into())
}

async fn head(on: impl Into<On<'_>>) -> sqlx::Result<Head> {
    query(on, "SELECT seq, hash FROM audit_head WHERE id = 1").one().await
}

/// The head, which nobody else can move until `tx` ends.
async fn lock_head(tx: &mut Tx) -> sqlx::Result<Head> {
    const SQL: &str = "UPDATE audit_head SET seq = seq WHERE id = 1 RETURNING seq, hash";
    query(tx, SQL).one().await
}

async fn set_head(tx: &mut Tx, seq: i64, hash: Hash) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1";
    let moved = query(tx, SQL).bind(seq).bind(hash.to_vec()).execute().await?;
    if moved == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
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
    // A trigger could let it go without an error.
    if inserted == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// Whether there are rows, none of which was ever in a chain.
async fn waits_for_adoption(on: impl Into<On<'_>>) -> sqlx::Result<bool> {
    const SQL: &str = "SELECT h.seq FROM audit_head h WHERE h.id = 1 AND h.seq = 0 \
        AND EXISTS (SELECT 1 FROM api_key_audit_logs) \
        AND NOT EXISTS (SELECT 1 FROM api_key_audit_logs WHERE hash IS NOT NULL)";
    Ok(query(on, SQL).optional::<(i64,)>().await?.is_some())
}

/// At most `limit` rows from place `seq` on, in their order.
async fn rows_from(on: impl Into<On<'_>>, seq: i64, limit: i64) -> sqlx::Result<Vec<Row>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM api_key_audit_logs WHERE seq >= $1 ORDER BY seq LIMIT $2"
    );
    query(on, SQL).bind(seq).bind(limit).all().await
}

/// Writes the hash of a row that had none, and its time as it was hashed.
async fn set_hash(tx: &mut Tx, row: &Row) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE api_key_audit_logs \
                       SET timestamp = $2, hash_key_id = $3, payload = $4, hash = $5 WHERE seq = $1";
    let statement = query(tx, SQL).bind(row.seq).bind(row.timestamp.at.trunc_subsecs(6));
    let statement = statement.bind(row.hash_key_id).bind(row.payload.clone());
    statement.bind(row.hash.clone()).execute().await?;
    Ok(())
}
