//! Import from FastAPI: reads a database of the FastAPI app and writes its API keys, users,
//! conversations and audit log into the Octopus database.
//!
//! The import is one transaction: if it fails, nothing is changed. It is idempotent: it recognizes
//! imported keys by their hash, conversations by an external id derived from immutable fields, and
//! users by email or username and registration time.
//!
//! The module is above the features, as it writes tables of several of them.

mod audit_log;
mod conversations;
mod error;
mod ids;
mod importer;
mod keys;
mod messages;
mod options;
mod report;
mod repository;
mod run;
mod secrets;
mod source;
mod targets;
mod users;
mod values;

pub use error::ImportError;
pub use options::{Options, Progress};
pub use report::{Count, Done, Note, Summary, Tally, Timing};
pub use run::run;
