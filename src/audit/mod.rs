//! The audit log: operations on API keys and on the rights of users, with their caller and origin.
//!
//! The entries form a hash chain: the HMAC of each covers its content and the HMAC of the previous
//! entry. Verification therefore detects entries that were changed, moved, inserted or deleted. An
//! attacker who can write the database and has the audit key can forge the whole chain; only an
//! anchor that is stored elsewhere reveals that.

mod anchor;
mod anchors;
mod audit_log;
mod chain;
mod export;
mod key_change;
mod keys;
mod origin;
mod prune;
mod replay;
mod repository;
mod time;
mod verify;

pub use anchor::{Anchor, AnchorError};
pub use anchors::{append_anchor, newest_anchor};
pub use audit_log::{Audit, Operation, end};
pub use chain::Row;
pub use export::ExportedEntry;
pub use key_change::KeyChange;
pub use keys::{AuditKeyError, AuditKeys};
pub use origin::{Action, Origin, PerformedBy, Subject};
pub use prune::Pruned;
pub use replay::KeyDifference;
pub(crate) use repository::columns;
pub use time::Time;
pub use verify::{Fault, Verification};
