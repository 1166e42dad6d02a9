//! Opens an SQLite database.

use super::group_commit::Writer;
use super::migrate;
use super::open_files::OpenFiles;
use super::pool::ConnectionPool;
use crate::db::error::OpenError;
use crate::db::file_fault::Use;
use crate::db::files::with_suffix;
use crate::db::handle::Db;
use crate::db::last_write::LastWrite;
use crate::db::migrate::Changes;
use crate::db::private_file;
use crate::db::timeout::ACQUIRE_TIMEOUT;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Number of read connections.
const READERS: u32 = 4;
/// `PRAGMA cache_size` of the write connection: 16 MiB (negative values are in KiB). Writes to many
/// conversations change many pages of several indexes.
const WRITE_CACHE: &str = "-16384";
/// How long a write waits for the write lock of another process.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// `PRAGMA journal_size_limit`: the write-ahead log is truncated to 64 MiB after a checkpoint.
const JOURNAL_SIZE_LIMIT: &str = "67108864";

/// Opens the SQLite file at `path` read-only, as a file that no other process writes. Accepts an
/// older schema; returns whether it is older.
pub(crate) async fn open_read_only(path: &Path) -> Result<(Db, bool), OpenError> {
    let is_alone = is_alone(path);
    let usage = if is_alone { Use::Read } else { Use::Write };
    open_immutable(path, is_alone).await.map_err(|error| error.explained(path, usage))
}

/// Returns whether no log is beside the file. If one is, SQLite must read it, which requires locks
/// and a shared-memory index.
fn is_alone(path: &Path) -> bool {
    ["-wal", "-journal"].iter().all(|ending| !with_suffix(path, ending).exists())
}

async fn open_immutable(path: &Path, is_alone: bool) -> Result<(Db, bool), OpenError> {
    let failed = |cause| OpenError::file(path, &cause);
    // SQLite parses a name that begins with "file:" as a URI; an absolute path does not.
    let path = std::path::absolute(path).map_err(failed)?;
    std::fs::metadata(&path).map_err(failed)?;
    // If the file is alone, `immutable` creates no files, and the folder need not be writable.
    let options = SqliteConnectOptions::new().filename(&path).read_only(true).immutable(is_alone);
    let is_older = migrate::is_older(&options).await?;
    let pool = SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT);
    let read = pool.clone().max_connections(READERS).connect_with(options.clone()).await?;
    let read = ConnectionPool::new(read);
    let write =
        Writer::new(ConnectionPool::new(pool.max_connections(1).connect_lazy_with(options)), None);
    let last_write = LastWrite::default();
    Ok((Db::Sqlite { read, write, path: Arc::new(path), last_write }, is_older))
}

/// Opens the SQLite file at `path`. Returns whether its schema was older.
pub(crate) async fn open(path: &Path, changes: Changes) -> Result<(Db, bool), OpenError> {
    let opened = open_and_prepare(path, changes).await;
    opened.map_err(|error| error.explained(path, Use::Write))
}

async fn open_and_prepare(path: &Path, changes: Changes) -> Result<(Db, bool), OpenError> {
    let failed = |cause| OpenError::file(path, &cause);
    private_file::refuse_links_beside(path).map_err(failed)?;
    if changes.create {
        create_private(path).map_err(failed)?;
    } else {
        std::fs::metadata(path).map_err(failed)?;
    }
    if changes.any() {
        private_file::restrict_permissions(path);
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT)
        // Overwrites deleted content with zeros.
        .pragma("secure_delete", "ON")
        .statement_cache_capacity(512)
        .busy_timeout(ACQUIRE_TIMEOUT);
    let was_older = migrate::migrate(path, &options, changes).await?;
    let pool = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let writing = options.clone().busy_timeout(LOCK_TIMEOUT).pragma("cache_size", WRITE_CACHE);
    let write = pool(1).connect_with(writing).await?;
    let read = pool(READERS).connect_with(options.read_only(true)).await?;
    let read = ConnectionPool::new(read);
    // All connections now: one that is opened later could not find the file, or find another.
    read.open_all().await?;
    let write = Writer::new(ConnectionPool::new(write), Some(OpenFiles::of(path)));
    let (path, last_write) = (Arc::new(path.to_owned()), LastWrite::default());
    Ok((Db::Sqlite { read, write, path, last_write }, was_older))
}

/// Creates the file with mode 600. SQLite gives its log and index files the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    match private_file::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}
