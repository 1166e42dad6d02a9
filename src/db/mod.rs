//! One database handle for SQLite and Postgres. Statements are written once, in the SQL that both
//! share (`$1`, `RETURNING`, `ON CONFLICT`), and run on the database that `DATABASE_URL` names.
//!
//! This file only declares and re-exports. Files of this folder import from the file that defines
//! an item, never from here, so that no two files import each other.

mod backfill;
pub mod bulk;
mod check;
mod error;
mod file_fault;
pub mod files;
mod handle;
mod inspect;
mod last_write;
pub mod lease;
mod migrate;
mod options;
mod postgres;
mod private_file;
mod query;
mod sqlite;
mod timeout;
mod transaction;
mod watch;
mod write_probe;

pub use check::report::Check;
pub use check::tables::{NameKeys, SearchIndex, TableChecks, TableRule, TimeColumns};
pub use check::{check, check_file};
pub use error::OpenError;
pub use file_fault::explain_file_error;
pub use handle::Db;
pub use inspect::PoolState;
pub use last_write::LastWrite;
pub use options::{DbOptions, Opened};
pub use postgres::notify::Listener;
pub use postgres::watch::{Heartbeat, Notification, PostgresWatch};
pub use query::{Bind, Executor, Query, Row, from_json, query};
pub use sqlite::backup::{BackupError, back_up, belongs_to};
pub use sqlite::copy::{CopyError, remove_leftover};
pub use sqlite::group_commit::{Writer, settled};
pub use sqlite::lock::Lock;
pub use sqlite::open_files::OpenFiles;
pub use sqlite::pool::ConnectionPool;
pub use sqlite::restore::{RestoreError, Restored};
pub use sqlite::watch::SqliteWatch;
pub use transaction::{Snapshot, Tx};
pub use watch::Watch;
