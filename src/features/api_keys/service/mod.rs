//! API key operations. Each change and its audit entry are written in one transaction.

mod audit_log;
mod change_lock;
mod changing;
mod failures;
mod idempotency;
mod reading;
mod rotation;
mod stored_key;
mod usage;
mod verification;

pub(super) use audit_log::record;
pub use audit_log::{audit_logs, prune_audit_log};
pub use changing::{cleanup_expired, create, deactivate, delete, prepare, update};
pub use failures::record_failures;
pub use reading::{expiring, get, list, own};
pub use rotation::{prepare_rotation, rotate};
pub use stored_key::UncommittedKey;
pub(super) use stored_key::insert;
pub use usage::{forget_old, usage};
pub use verification::verify;
