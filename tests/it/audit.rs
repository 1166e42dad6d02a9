//! The audit log: its entries form a hash chain, and verification reports every manipulation of the
//! database.

pub mod adoption;
mod anchors;
mod command;
mod export;
mod failures;
mod key_change;
mod keys;
mod pruning;
mod replay;
mod tampering;
mod users;
mod writing;

use crate::support::{Backend, TestApp};
use octopus::audit::{Action, Anchor, Origin, PerformedBy, Subject, Verification};
use octopus::core::clock::Clock;
use octopus::db::Tx;
use octopus::http::RequestId;
use octopus::state::AppState;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The problems that a verification reports.
const MISSING: &str = "the entry is missing";
const NO_PLACE: &str = "the entry was inserted at an invalid position";
const UNREADABLE: &str = "the entry was changed: it cannot be read";
const CHANGED: &str = "the entry was changed";
const MOVED: &str = "the entry was moved here from another position";
const UNCHAINED: &str = "the entry was inserted: it has no hash";
const NOT_ADOPTED: &str =
    "the entry has no hash: the server's next start adds hashes to entries from before the chain";
const EARLIER_KEY: &str =
    "the entry was signed with an earlier key after the chain changed to a newer one";
const NOT_SUCCESSOR: &str = "the entry changes the audit key and does not name the previous key";
const RETURNED_KEY: &str = "the entry changes the audit key to one that was in use before";
const OLD_END: &str = "the last entry was not signed with AUDIT_KEY: the server has not started \
                       with that key, or the chain was truncated and continued with an earlier one";
const UNKNOWN_KEY: &str =
    "the entry was signed with a key that is neither AUDIT_KEY nor one of AUDIT_KEYS_OLD";
const BROKEN_LINK: &str = "the entry does not follow the previous entry: one of them was replaced";
const CUT_OFF: &str = "the chain is truncated here";
const BEYOND: &str = "the entry was inserted after the head of the chain";
const OTHER_HEAD: &str = "the recorded head of the chain is not this entry's hash";
const NO_HEAD: &str = "the recorded head of the chain is missing or cannot be read";
const OTHER_ANCHOR: &str =
    "the entry's hash differs from the anchor: it or an earlier entry was replaced";

const KEYS: &str = "/api/v1/api-keys";
const LOGS: &str = "/api/v1/api-keys/audit-logs";
const VERIFY: &str = "/api/v1/admin/audit/verify";

/// The application state without a running server.
async fn open(backend: &Backend, variables: &[(&str, &str)]) -> AppState {
    AppState::open(backend.config(variables).await, Clock::default()).await.unwrap()
}

/// Appends an entry with a value in every column, in `tx`.
async fn record(app: &AppState, tx: &mut Tx, n: i64) -> sqlx::Result<()> {
    let sent = HeaderValue::from_static("a-request");
    let origin = Origin {
        by: PerformedBy::Key { id: 7, name: "the caller".into() },
        ip: Some([192, 0, 2, 1].into()),
        request_id: Some(RequestId::of(Some(&sent))),
    };
    let (subject, details) = (Subject::Key(n, "the key"), json!({"n": n, "text": "\"ä\\\n"}));
    app.audit.record(tx, &origin, Action::UpdateUser, subject, &details, app.clock.now()).await
}

/// Appends `n` such entries.
async fn append(app: &AppState, n: i64) {
    let mut tx = app.db.begin().await.unwrap();
    for n in 1..=n {
        record(app, &mut tx, n).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn verify(app: &AppState, anchor: Option<&Anchor>) -> Verification {
    app.audit.verify(&app.db, anchor).await.unwrap()
}

/// Asserts that the chain is intact and has `rows` entries.
async fn intact(app: &AppState, rows: i64, what: &str) -> Anchor {
    let found = verify(app, None).await;
    assert_eq!((found.first_bad, found.verified_rows, found.intact), (None, rows, true), "{what}");
    assert_eq!(found.head.seq, rows, "{what}");
    found.head
}

/// Asserts that the first bad entry is at `seq`, with this `problem`.
#[track_caller]
fn broken(found: &Verification, (seq, problem): (i64, &str), what: &str) {
    let fault = found.first_bad.as_ref().unwrap_or_else(|| panic!("no fault found: {what}"));
    assert_eq!((fault.seq, fault.problem), (seq, problem), "{what}");
    assert!(!found.intact, "{what}");
    // The entries before it verify.
    assert!(problem == NO_PLACE || found.verified_rows == (seq - 1).max(0), "{what}");
}

/// The id of an audit key as stored with its hashes.
fn key_id(secret: &str) -> u32 {
    let digest = Sha256::new().chain_update(b"octopus-audit-key-id\0").chain_update(secret);
    let digest = digest.finalize();
    u32::from_be_bytes(digest[..4].try_into().unwrap())
}

/// A SQL literal of bytes given in hexadecimal.
fn bytes(backend: &Backend, hex: &str) -> String {
    if backend.is_sqlite() { format!("x'{hex}'") } else { format!("'\\x{hex}'::bytea") }
}

async fn get(app: &TestApp, key: &str, path: &str) -> Value {
    app.get(path).key(key).send().await.expect(200)
}
