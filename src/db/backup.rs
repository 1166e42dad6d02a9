//! Copies of an SQLite file that is in use: whole, or not there.

use super::copy::{Copy, CopyError, UNFINISHED};
use super::lock::{beside, in_resolved_folder, is_same, resolved};
use super::{OpenError, migrate};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a copy waits for somebody who has the file for himself.
const PATIENCE: Duration = Duration::from_secs(10);
/// Steps of SQLite between two looks whether to go on.
const STEPS: i32 = 10_000;
/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be opened, or is not ours.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is a folder, a device or the like.
    #[error("{} is not a file; name a file for the backup", .0.display())]
    NoFile(PathBuf),
    /// It is a symbolic link.
    #[error(
        "{} is a symbolic link, which a backup neither follows nor replaces; name a file",
        .0.display()
    )]
    Link(PathBuf),
    /// The database itself, or what belongs to it.
    #[error("{} belongs to the database; give the backup another name", .0.display())]
    OfTheDatabase(PathBuf),
    /// What SQLite would take for a part of the backup.
    #[error(
        "{} is there: SQLite would take it for a part of the backup; remove it, or give the \
         backup another name",
        .0.display()
    )]
    InTheWay(PathBuf),
    /// It cannot be written.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// It was told to stop.
    #[error("it was told to stop before the copy was whole")]
    Stopped,
}

/// Copies the SQLite file at `database` to `to`, as it is at one moment, while others read and write
/// it; how many bytes that made. `to` is whole and on the disk when it has its name; what has it
/// already stays, unless it is to be replaced.
///
/// The copy is a single file without free pages. Until it is made, the log cannot begin anew.
pub async fn back_up(
    database: &Path,
    to: &Path,
    replace: bool,
    stop: &CancellationToken,
) -> Result<u64, BackupError> {
    let not_found = |cause| OpenError::File { path: database.to_owned(), cause };
    fs::metadata(database).map_err(not_found)?;
    migrate::is_older_file(database).await?;
    check_name(database, to, replace)?;
    // To read, and yet not read-only: the last one to close takes the log away, as a writer can.
    let options = SqliteConnectOptions::new().filename(database).busy_timeout(PATIENCE);
    let mut connection = connect(options, stop).await.map_err(CopyError::from)?;
    let copied = Copy::write(&mut connection, to).await;
    connection.close().await.map_err(CopyError::from)?;
    match copied {
        Err(_) if stop.is_cancelled() => Err(BackupError::Stopped),
        copied => Ok(copied?.name(replace).await?),
    }
}

/// A connection that gives up when `stop` is cancelled, and says nothing of how long it takes.
async fn connect(
    options: SqliteConnectOptions,
    stop: &CancellationToken,
) -> sqlx::Result<SqliteConnection> {
    let mut connection = options.disable_statement_logging().connect().await?;
    let stop = stop.clone();
    connection.lock_handle().await?.set_progress_handler(STEPS, move || !stop.is_cancelled());
    Ok(connection)
}

/// Refuses names that would destroy something, or make something else of the backup.
fn check_name(database: &Path, to: &Path, replace: bool) -> Result<(), BackupError> {
    let to = in_resolved_folder(to);
    if [&to, &beside(&to, UNFINISHED)].iter().any(|path| belongs_to(database, path)) {
        return Err(BackupError::OfTheDatabase(to));
    }
    for ending in ["-wal", "-journal"] {
        let other = beside(&to, ending);
        if other.exists() {
            return Err(BackupError::InTheWay(other));
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

/// Whether `path` is `database` by any name, or a file that SQLite or we keep beside it.
pub fn belongs_to(database: &Path, path: &Path) -> bool {
    let (database, path) = (resolved(database), resolved(path));
    let same = fs::metadata(&path).ok().zip(fs::metadata(&database).ok());
    let endings = ["", "-wal", "-shm", "-journal", ".lock", ".audit-key", UNFINISHED];
    same.is_some_and(|(one, other)| is_same(&one, &other))
        || endings.iter().any(|ending| path == beside(&database, ending))
}
