//! Verifies the chain: recomputes every hash and reports the first faulty entry.

use super::anchor::Anchor;
use super::chain::{self, Hash, Row, previous_key};
use super::keys::AuditKeys;
use super::origin::Action;
use super::replay::{KeyDifference, Replay};
use super::repository::{self, BATCH};
use crate::db::{Db, Snapshot};
use serde::Serialize;
use std::collections::HashSet;

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = AuditVerification)]
pub struct Verification {
    /// Whether no audit entry was changed, moved, inserted or deleted, and every API key matches
    /// the audit log.
    pub intact: bool,
    /// Number of valid entries before the first fault.
    #[schema(example = 1204)]
    pub verified_rows: i64,
    /// Head of the chain as `SEQ:HASH`. Store it elsewhere and pass it as `anchor` later.
    #[schema(value_type = String, example = "1204:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub head: Anchor,
    /// The last entry that retention removed, as `SEQ:HASH`; the chain continues after it. Null if
    /// none was removed.
    #[schema(value_type = Option<String>)]
    pub removed_through: Option<Anchor>,
    /// The first faulty entry; null if there is none.
    pub first_bad: Option<Fault>,
    /// Properties of API keys that differ from the audit log, at most 100. Empty if the chain is
    /// broken, as its entries are then unreliable.
    pub key_differences: Vec<KeyDifference>,
}

impl Verification {
    /// The first fault: of an entry, otherwise of an API key.
    pub fn fault(&self) -> Option<Fault> {
        let differs = |found: &KeyDifference| {
            let seq = found.seq.unwrap_or(self.head.seq);
            Fault { seq, problem: KEYS_DIFFER }
        };
        self.first_bad.clone().or_else(|| self.key_differences.first().map(differs))
    }
}

/// A faulty audit entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = AuditFault)]
pub struct Fault {
    /// Position in the chain.
    #[schema(example = 17)]
    pub seq: i64,
    /// Description of the fault.
    #[schema(example = "the entry was changed")]
    pub problem: &'static str,
}

const MISSING: &str = "the entry is missing";
const NO_PLACE: &str = "the entry was inserted at an invalid position";
const UNREADABLE: &str = "the entry was changed: it cannot be read";
const CHANGED: &str = "the entry was changed";
const MOVED: &str = "the entry was moved here from another position";
const UNCHAINED: &str = "the entry was inserted: it has no hash";
const NOT_ADOPTED: &str =
    "the entry has no hash: the server's next start adds hashes to entries from before the chain";
const UNKNOWN_KEY: &str =
    "the entry was signed with a key that is neither AUDIT_KEY nor one of AUDIT_KEYS_OLD";
const BROKEN_LINK: &str = "the entry does not follow the previous entry: one of them was replaced";
const CUT_OFF: &str = "the chain is truncated here";
const BEYOND: &str = "the entry was inserted after the head of the chain";
const OTHER_HEAD: &str = "the recorded head of the chain is not this entry's hash";
const NO_HEAD: &str = "the recorded head of the chain is missing or cannot be read";
const OTHER_ANCHOR: &str =
    "the entry's hash differs from the anchor: it or an earlier entry was replaced";

const EARLIER_KEY: &str =
    "the entry was signed with an earlier key after the chain changed to a newer one";
const NOT_SUCCESSOR: &str = "the entry changes the audit key and does not name the previous key";
const RETURNED_KEY: &str = "the entry changes the audit key to one that was in use before";
const OLD_END: &str = "the last entry was not signed with AUDIT_KEY: the server has not started \
                       with that key, or the chain was truncated and continued with an earlier one";
const KEYS_DIFFER: &str = "the API keys differ from the audit log";
const KEYS_UNREADABLE: &str = "a row of api_keys was changed: it cannot be read";

const REMOVED: &str = "retention removed the anchor's entry: compare with a later anchor";

/// Verifies the chain from its beginning or its newest checkpoint, in one snapshot.
pub(super) async fn verify(
    keys: &AuditKeys,
    db: &Db,
    anchor: Option<&Anchor>,
) -> sqlx::Result<Verification> {
    let mut snapshot = db.snapshot().await?;
    let head = match repository::head(&mut snapshot).await.and_then(|head| head.anchor()) {
        Err(sqlx::Error::RowNotFound) => None,
        Err(error) if is_unreadable(&error) => None,
        head => Some(head?),
    };
    let removed_through = repository::checkpoint(&mut snapshot).await?;
    let start = removed_through.clone().unwrap_or(Anchor::GENESIS);
    let mut verifier = Verifier {
        keys,
        head: head.as_ref(),
        anchor,
        start: start.clone(),
        last: start.clone(),
        signers: Signers::default(),
        replay: Replay::new(removed_through.is_some()),
    };
    let mut first_bad = if repository::waits_for_adoption(&mut snapshot).await? {
        Some(Fault { seq: 1, problem: NOT_ADOPTED })
    } else {
        verifier.find_fault(&mut snapshot).await?
    };
    let Verifier { last, replay, .. } = verifier;
    let mut key_differences = vec![];
    if first_bad.is_none() {
        match replay.compare(&mut snapshot).await {
            Ok(differences) => key_differences = differences,
            Err(error) if is_unreadable(&error) => {
                first_bad = Some(Fault { seq: last.seq, problem: KEYS_UNREADABLE });
            }
            Err(error) => return Err(error),
        }
    }
    let intact = first_bad.is_none() && key_differences.is_empty();
    let verified_rows = last.seq - start.seq;
    let head = head.unwrap_or(Anchor::GENESIS);
    Ok(Verification { intact, verified_rows, head, removed_through, first_bad, key_differences })
}

/// The state of one pass over the chain.
struct Verifier<'v> {
    keys: &'v AuditKeys,
    head: Option<&'v Anchor>,
    anchor: Option<&'v Anchor>,
    /// The position before the first entry to verify.
    start: Anchor,
    /// The last valid entry.
    last: Anchor,
    signers: Signers,
    replay: Replay,
}

/// The audit keys that signed the entries verified so far.
#[derive(Default)]
struct Signers {
    seen: HashSet<i64>,
    last: Option<i64>,
    /// Whether a `ChangeAuditKey` entry was seen. Before it, entries of several keys may be mixed:
    /// earlier versions wrote no such entry.
    have_changed: bool,
}

impl Signers {
    /// Fails if the key `id` was not allowed to sign `row`.
    fn check(&mut self, row: &Row, id: i64) -> Result<(), &'static str> {
        if row.action == Action::ChangeAuditKey.as_str() {
            if self.last.is_some_and(|last| previous_key(&row.details) != Some(last)) {
                return Err(NOT_SUCCESSOR);
            }
            if self.have_changed && self.seen.contains(&id) {
                return Err(RETURNED_KEY);
            }
            self.have_changed = true;
        } else if self.have_changed && self.last != Some(id) {
            return Err(EARLIER_KEY);
        }
        self.seen.insert(id);
        self.last = Some(id);
        Ok(())
    }
}

impl Verifier<'_> {
    /// Finds the first fault.
    async fn find_fault(&mut self, snapshot: &mut Snapshot) -> sqlx::Result<Option<Fault>> {
        if let Some(anchor) = self.anchor.filter(|anchor| anchor.seq < self.start.seq) {
            return Ok(Some(Fault { seq: anchor.seq, problem: REMOVED }));
        }
        if let Err(problem) = self.compare(&self.last) {
            return Ok(Some(Fault { seq: self.last.seq, problem }));
        }
        loop {
            let rows = match self.next(snapshot, BATCH).await {
                // Read one by one: the entries before the unreadable one may be valid.
                Err(error) if is_unreadable(&error) => match self.next(snapshot, 1).await {
                    Err(error) if is_unreadable(&error) => {
                        return Ok(Some(Fault { seq: self.last.seq + 1, problem: UNREADABLE }));
                    }
                    rows => rows?,
                },
                rows => rows?,
            };
            if rows.is_empty() {
                let is_emptied = self.last.seq == 0 && repository::has_keys(snapshot).await?;
                let emptied = is_emptied.then_some(Fault { seq: 1, problem: CUT_OFF });
                return Ok(self.missing_end().or(emptied));
            }
            for row in rows {
                match self.check(&row) {
                    Ok(hash) => {
                        self.last = Anchor { seq: row.seq, hash };
                        self.replay.apply(&row);
                    }
                    Err(fault) => return Ok(Some(fault)),
                }
            }
        }
    }

    /// The entries after the last valid one, in order.
    async fn next(&self, snapshot: &mut Snapshot, limit: i64) -> sqlx::Result<Vec<Row>> {
        if self.last == self.start {
            // Include positions below 1, where an attacker could hide an entry.
            return repository::rows_from(snapshot, i64::MIN, limit).await;
        }
        // Include the last valid position: an attacker could hide a second entry there.
        let mut rows = repository::rows_from(snapshot, self.last.seq, limit + 1).await?;
        rows.drain(..rows.len().min(1));
        Ok(rows)
    }

    /// The hash of `row` if it is the valid next entry, otherwise its fault.
    fn check(&mut self, row: &Row) -> Result<Hash, Fault> {
        let seq = self.last.seq + 1;
        if row.seq < seq {
            return Err(Fault { seq: row.seq, problem: NO_PLACE });
        }
        self.check_next(row, seq).map_err(|problem| Fault { seq, problem })
    }

    fn check_next(&mut self, row: &Row, seq: i64) -> Result<Hash, &'static str> {
        if self.head.is_some_and(|head| head.seq < seq) {
            return Err(BEYOND);
        }
        if row.seq != seq {
            return Err(MISSING);
        }
        let (Some(payload), Some(stored)) = (&row.payload, &row.hash) else {
            return Err(UNCHAINED);
        };
        let key = row.hash_key_id.and_then(|id| self.keys.find(id)).ok_or(UNKNOWN_KEY)?;
        if !row.is_as_written() {
            let is_elsewhere = payload_seq(payload).is_some_and(|other| other != seq);
            return Err(if is_elsewhere { MOVED } else { CHANGED });
        }
        let hash = chain::hash(key, seq, row.timestamp.at, &self.last.hash, payload);
        if hash.as_slice() != stored.as_slice() {
            return Err(BROKEN_LINK);
        }
        let found = Anchor { seq, hash };
        self.compare(&found)?;
        self.signers.check(row, key.id.into())?;
        // An anchor proves its entry regardless of the signer: a backup may be older than the key.
        let is_end = self.head.is_some_and(|head| head.seq == seq);
        if is_end && key.id != self.keys.current.id && self.anchor != Some(&found) {
            return Err(OLD_END);
        }
        Ok(hash)
    }

    /// Compares an entry with the stored head and the anchor.
    fn compare(&self, found: &Anchor) -> Result<(), &'static str> {
        let differs = |known: &Anchor| known.seq == found.seq && known.hash != found.hash;
        if self.head.is_some_and(differs) {
            return Err(OTHER_HEAD);
        }
        if self.anchor.is_some_and(differs) { Err(OTHER_ANCHOR) } else { Ok(()) }
    }

    /// The fault at the end of the chain, if any: entries or the stored head are missing.
    fn missing_end(&self) -> Option<Fault> {
        let seq = self.last.seq + 1;
        let fault = |problem| Some(Fault { seq, problem });
        let Some(head) = self.head else { return fault(NO_HEAD) };
        if head.seq < self.last.seq {
            return fault(OTHER_HEAD); // a negative position, without an entry
        }
        let is_later = |known: &Anchor| known.seq >= seq;
        if is_later(head) || self.anchor.is_some_and(is_later) { fault(CUT_OFF) } else { None }
    }
}

fn is_unreadable(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
}

/// The position that a payload was written for.
fn payload_seq(payload: &str) -> Option<i64> {
    serde_json::from_str::<serde_json::Value>(payload).ok()?.get("seq")?.as_i64()
}
