//! Recomputes the chain and names the first row that is not as it was written.

use super::chain::{self, BEGINNING, Hash, Row};
use super::keys::AuditKeys;
use super::{BATCH, head, rows_after};
use crate::db::Db;
use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// A place in the chain and the hash there, written `SEQ:HASH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The place; 0 is before the first row.
    pub seq: i64,
    /// The hash of the row there.
    pub hash: Hash,
}

/// A text that is no anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an anchor is SEQ:HASH, a number and 64 hexadecimal digits, as the log's checkpoints give it"
)]
pub struct AnchorError;

impl FromStr for Anchor {
    type Err = AnchorError;

    fn from_str(text: &str) -> Result<Self, AnchorError> {
        let (seq, hash) = text.split_once(':').ok_or(AnchorError)?;
        let seq = seq.parse().ok().filter(|seq| *seq >= 0).ok_or(AnchorError)?;
        let mut bytes = BEGINNING;
        hex::decode_to_slice(hash, &mut bytes).map_err(|_| AnchorError)?;
        Ok(Self { seq, hash: bytes })
    }
}

impl Display for Anchor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, hex::encode(self.hash))
    }
}

impl Serialize for Anchor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What verifying the chain found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Verification {
    /// Whether every row is as it was written, in its place, and none is missing.
    pub intact: bool,
    /// Rows that were found in order, from the first on.
    #[schema(example = 1204)]
    pub verified_rows: i64,
    /// The end of the chain as `SEQ:HASH`: keep it elsewhere, and give it as `anchor` later.
    #[schema(value_type = String, example = "1204:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub head: Anchor,
    /// The first row that is not in order.
    pub first_bad: Option<Fault>,
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Fault {
    /// Its place in the chain.
    #[schema(example = 17)]
    pub seq: i64,
    /// What is wrong.
    #[schema(example = "the row was changed")]
    pub problem: &'static str,
}

const MISSING: &str = "the row is missing";
const UNREADABLE: &str = "the row was changed: it cannot be read";
const CHANGED: &str = "the row was changed";
const MOVED: &str = "the row was moved here from another place";
const UNCHAINED: &str = "the row was put in: it has no hash";
const UNKNOWN_KEY: &str =
    "the row was hashed with a key that is neither AUDIT_KEY nor one of AUDIT_KEYS_OLD";
const BROKEN_LINK: &str = "the row does not follow the one before it: one of them was replaced";
const CUT_OFF: &str = "the chain was cut off here";
const BEYOND: &str = "the row was put in after the end of the chain";
const OTHER_HEAD: &str = "the recorded end of the chain is not this row's hash";
const OTHER_ANCHOR: &str = "the row's hash is not the anchor's: it or one before it was replaced";

/// Walks the chain from its beginning, in one snapshot.
pub(super) async fn verify(
    keys: &AuditKeys,
    db: &Db,
    anchor: Option<&Anchor>,
) -> sqlx::Result<Verification> {
    let mut snapshot = db.snapshot().await?;
    let head = match head(&mut snapshot).await {
        Err(sqlx::Error::RowNotFound) => Anchor { seq: 0, hash: BEGINNING },
        head => head?.anchor()?,
    };
    let (mut last, mut previous) = (0, BEGINNING);
    let found = |fault: Option<Fault>, verified_rows| Verification {
        intact: fault.is_none(),
        verified_rows,
        head: head.clone(),
        first_bad: fault,
    };
    loop {
        let rows = match rows_after(&mut snapshot, last, BATCH).await {
            // Those before it are in order all the same.
            Err(error) if is_unreadable(&error) => match rows_after(&mut snapshot, last, 1).await {
                Err(error) if is_unreadable(&error) => {
                    let fault = Fault { seq: last + 1, problem: UNREADABLE };
                    return Ok(found(Some(fault), last));
                }
                rows => rows?,
            },
            rows => rows?,
        };
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let seq = last + 1;
            match check(keys, &row, seq, &previous, &head, anchor) {
                Ok(hash) => previous = hash,
                Err(problem) => return Ok(found(Some(Fault { seq, problem }), last)),
            }
            last = seq;
        }
    }
    let end = anchor.map_or(0, |anchor| anchor.seq).max(head.seq);
    let cut_off = (last < end).then_some(Fault { seq: last + 1, problem: CUT_OFF });
    Ok(found(cut_off, last))
}

fn is_unreadable(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
}

/// The hash of `row`, which must be the one at place `seq`, or what is wrong with it.
fn check(
    keys: &AuditKeys,
    row: &Row,
    seq: i64,
    previous: &Hash,
    head: &Anchor,
    anchor: Option<&Anchor>,
) -> Result<Hash, &'static str> {
    if row.seq != seq {
        return Err(MISSING);
    }
    if seq > head.seq {
        return Err(BEYOND);
    }
    let (Some(payload), Some(stored)) = (&row.payload, &row.hash) else { return Err(UNCHAINED) };
    let key = row.hash_key_id.and_then(|id| keys.find(id)).ok_or(UNKNOWN_KEY)?;
    if row.to_payload().ok().as_ref() != Some(payload) {
        return Err(if place_in(payload) == Some(seq) { CHANGED } else { MOVED });
    }
    let hash = chain::hash(key, seq, row.timestamp, previous, payload);
    if hash.as_slice() != stored.as_slice() {
        return Err(BROKEN_LINK);
    }
    if seq == head.seq && hash != head.hash {
        return Err(OTHER_HEAD);
    }
    if anchor.is_some_and(|anchor| anchor.seq == seq && anchor.hash != hash) {
        return Err(OTHER_ANCHOR);
    }
    Ok(hash)
}

/// The place a payload was written for.
fn place_in(payload: &str) -> Option<i64> {
    serde_json::from_str::<serde_json::Value>(payload).ok()?.get("seq")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_read_as_it_is_written() {
        let text = format!("17:{}", "0f".repeat(32));
        assert_eq!(text.parse::<Anchor>().unwrap().to_string(), text);
        for wrong in ["", "17", "17:", "x:00", "-1:00", "17:zz", &text[..text.len() - 1]] {
            assert_eq!(wrong.parse::<Anchor>(), Err(AnchorError), "{wrong}");
        }
    }
}
