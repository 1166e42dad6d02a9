//! Backs up an SQLite file that is in use. A backup is complete or absent.

use super::copy::{Copy, CopyError, UNFINISHED};
use super::migrate;
use crate::db::error::OpenError;
use crate::db::file_fault::Use;
use crate::db::files::{in_resolved_directory, is_same, resolved, with_suffix};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a backup waits while another process holds an exclusive lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Instructions of SQLite between two checks for cancellation.
const STEPS: i32 = 10_000;
/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be opened or belongs to another program.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The target is a folder, a device or another special file.
    #[error("{} is not a file; name a file for the backup", .0.display())]
    NoFile(PathBuf),
    /// The target is a symbolic link.
    #[error(
        "{} is a symbolic link, which a backup neither follows nor replaces; name a regular file",
        .0.display()
    )]
    Link(PathBuf),
    /// The target is the database or a file that belongs to it.
    #[error("{} belongs to the database; give the backup another name", .0.display())]
    BelongsToDatabase(PathBuf),
    /// SQLite would read this existing file as part of the backup.
    #[error(
        "{} already exists: SQLite would read it as part of the backup; remove it, or give the \
         backup another name",
        .0.display()
    )]
    LeftoverLog(PathBuf),
    /// The copy cannot be written.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The backup was cancelled.
    #[error("the backup was cancelled before it was complete")]
    Stopped,
}

/// Copies a snapshot of the SQLite file at `database` to `to`, while other connections read and
/// write it. Returns the size in bytes. The file gets the name `to` once it is complete and synced.
/// An existing file is kept, unless `replace` is set.
///
/// The copy is a single file without free pages. Until it is complete, the write-ahead log cannot
/// be reset and keeps growing.
pub async fn back_up(
    database: &Path,
    to: &Path,
    replace: bool,
    stop: &CancellationToken,
) -> Result<u64, BackupError> {
    let explained = |error: OpenError| error.explained(database, Use::Write);
    fs::metadata(database).map_err(|cause| OpenError::file(database, &cause))?;
    migrate::is_older_file(database).await.map_err(explained)?;
    check_name(database, to, replace)?;
    // Not read-only: the last connection to close removes the log, which requires write access.
    let options = SqliteConnectOptions::new().filename(database).busy_timeout(BUSY_TIMEOUT);
    let connected = connect(options, stop).await;
    let mut connection = connected.map_err(|error| explained(error.into()))?;
    let copied = Copy::write(&mut connection, to).await;
    connection.close().await.map_err(CopyError::from)?;
    match copied {
        Err(_) if stop.is_cancelled() => Err(BackupError::Stopped),
        copied => Ok(copied?.name(replace).await?),
    }
}

/// Opens a connection that interrupts its statement when `stop` is cancelled. Statements are not
/// logged.
async fn connect(
    options: SqliteConnectOptions,
    stop: &CancellationToken,
) -> sqlx::Result<SqliteConnection> {
    let mut connection = options.disable_statement_logging().connect().await?;
    let stop = stop.clone();
    connection.lock_handle().await?.set_progress_handler(STEPS, move || !stop.is_cancelled());
    Ok(connection)
}

/// Refuses a target that belongs to the database, exists or is not a regular file, or has a log
/// beside it that SQLite would read as part of the backup.
fn check_name(database: &Path, to: &Path, replace: bool) -> Result<(), BackupError> {
    let to = in_resolved_directory(to);
    if [&to, &with_suffix(&to, UNFINISHED)].iter().any(|path| belongs_to(database, path)) {
        return Err(BackupError::BelongsToDatabase(to));
    }
    for ending in ["-wal", "-journal"] {
        let other = with_suffix(&to, ending);
        if other.exists() {
            return Err(BackupError::LeftoverLog(other));
        }
    }
    match fs::symlink_metadata(&to) {
        Ok(found) if found.is_symlink() => Err(BackupError::Link(to)),
        Ok(found) if !found.is_file() => Err(BackupError::NoFile(to)),
        Ok(_) if !replace => Err(CopyError::Exists(to).into()),
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(CopyError::File { path: to, cause }.into())
        }
        _ => Ok(()),
    }
}

/// Returns whether `path` is `database`, by any name, or a file that SQLite or Octopus keeps beside
/// it.
pub fn belongs_to(database: &Path, path: &Path) -> bool {
    let (database, path) = (resolved(database), resolved(path));
    let same = fs::metadata(&path).ok().zip(fs::metadata(&database).ok());
    let endings = ["", "-wal", "-shm", "-journal", ".lock", ".audit-key", UNFINISHED];
    same.is_some_and(|(one, other)| is_same(&one, &other))
        || endings.iter().any(|ending| path == with_suffix(&database, ending))
}
