//! Replaces an SQLite database with the content of a backup.
//!
//! The database is complete at every moment: it is the old one or the new one.

use super::copy::{Copy, CopyError};
use super::lock::Lock;
use crate::db::error::OpenError;
use crate::db::file_fault::Use;
use crate::db::files::{directory_of, is_same, sync_directory_of, with_suffix};
use crate::db::handle::Db;
use sqlx::sqlite::{SqliteConnectOptions, SqliteLockingMode};
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
use std::fs::{self, Permissions};
use std::io;
use std::iter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait for other processes to close the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Suffix of the kept old database, followed by the time.
const SUFFIX: &str = ".before-restore-";

/// Why a restore failed. The database was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A program that does not use the lock file has the database open.
    #[error("another program has {} open; nothing was changed", .0.display())]
    InUse(PathBuf),
    /// The old database cannot be kept.
    #[error("cannot keep the old database as {}: {cause}; nothing was replaced", path.display())]
    Kept {
        /// Path under which it would be kept.
        path: PathBuf,
        /// Error of the operating system.
        cause: io::Error,
    },
    /// The old database cannot be opened, or its write-ahead log cannot be written back into it.
    #[error("cannot apply the write-ahead log of the old database: {0}; nothing was replaced")]
    Old(OpenError),
    /// The backup cannot be read, or its copy cannot be written.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// Result of a restore.
#[derive(Debug)]
pub struct Restored {
    /// Size of the restored database in bytes.
    pub bytes: u64,
    /// Path of the old database, if there was one.
    pub kept: Option<PathBuf>,
}

impl Lock {
    /// Replaces the locked database with the content of `backup`. The old database is kept beside
    /// it, with `time` in its name.
    pub async fn restore(&self, backup: &Db, time: &str) -> Result<Restored, RestoreError> {
        let database = self.database();
        let Db::Sqlite { read, .. } = backup else {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, "not an SQLite file");
            return Err(CopyError::File { path: database.to_owned(), cause }.into());
        };
        let options = (*read.options()).clone().disable_statement_logging();
        let mut reading = options.connect().await.map_err(CopyError::from)?;
        let copy = Copy::write(&mut reading, database).await;
        reading.close().await.map_err(CopyError::from)?;
        let copy = copy?;
        let kept = free_name(&with_suffix(database, &format!("{SUFFIX}{time}")));
        let old = checkpoint_and_lock(database).await?;
        let is_kept = keep(database, &kept, old.is_some())
            .map_err(|cause| RestoreError::Kept { path: kept.clone(), cause })?;
        let bytes = copy.name(true).await?;
        // Until now the exclusive lock kept other processes from writing to the old database. The
        // old database is complete and kept, so an error on close does not matter.
        if let Some(old) = old {
            let _ = old.close().await;
        }
        Ok(Restored { bytes, kept: is_kept.then_some(kept) })
    }

    /// Removes the second name of the database that a restore leaves if it is interrupted between
    /// keeping the old database and replacing it. It looks like a copy but is the same file.
    pub fn clear_leftovers(&self) -> io::Result<()> {
        let Ok(database) = fs::metadata(self.database()) else { return Ok(()) };
        let name = self.database().file_name().unwrap_or_default().to_string_lossy().into_owned();
        for entry in fs::read_dir(directory_of(self.database()))? {
            let entry = entry?;
            let is_kept = entry.file_name().to_string_lossy().starts_with(&(name.clone() + SUFFIX));
            let has_log =
                ["-wal", "-journal"].iter().any(|e| with_suffix(&entry.path(), e).exists());
            if is_kept && !has_log && is_same(&entry.metadata()?, &database) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Writes the log of the old database back into it. Returns a connection that holds an exclusive
/// lock, or `None` if there is no database that SQLite can open.
async fn checkpoint_and_lock(database: &Path) -> Result<Option<SqliteConnection>, RestoreError> {
    if !database.exists() {
        return Ok(None);
    }
    let take = async {
        let options = SqliteConnectOptions::new().filename(database).busy_timeout(BUSY_TIMEOUT);
        let options = options.locking_mode(SqliteLockingMode::Exclusive);
        let mut connection = options.disable_statement_logging().connect().await?;
        // Succeeds only if no other connection is open, and removes the log.
        connection.execute("PRAGMA journal_mode = DELETE").await?;
        connection.execute("BEGIN EXCLUSIVE").await?;
        Ok(connection)
    };
    match take.await {
        Ok(_) if with_suffix(database, "-wal").exists() => {
            Err(RestoreError::InUse(database.to_owned()))
        }
        Ok(connection) => Ok(Some(connection)),
        Err(sqlx::Error::Database(error)) => match primary(error.code().as_deref()) {
            BUSY | LOCKED => Err(RestoreError::InUse(database.to_owned())),
            CORRUPT | NOTADB => Ok(None),
            _ => Err(old(database, sqlx::Error::Database(error))),
        },
        Err(error) => Err(old(database, error)),
    }
}

/// The error of opening the old database, with its cause and remedy.
fn old(database: &Path, error: sqlx::Error) -> RestoreError {
    RestoreError::Old(OpenError::from(error).explained(database, Use::Write))
}

/// Returns `name`, or the first of `name-2`, `name-3` and so on that does not exist.
fn free_name(name: &Path) -> PathBuf {
    let numbered = (2..).map(|n: u32| with_suffix(name, &format!("-{n}")));
    let is_free = |name: &PathBuf| {
        ["", "-wal"].iter().all(|part| with_suffix(name, part).symlink_metadata().is_err())
    };
    iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_else(|| name.to_owned())
}

const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const CORRUPT: i32 = 11;
const NOTADB: i32 = 26;

/// Primary result code of SQLite: the low byte of an extended one.
fn primary(code: Option<&str>) -> i32 {
    code.and_then(|code| code.parse().ok()).map_or(0, |code: i32| code & 0xff)
}

/// Gives the old database a second name, `kept`, which remains when the new file takes the first
/// one. Returns whether there was an old database. If SQLite could not open it (not `is_closed`),
/// its log is kept as well: SQLite would otherwise apply it to the new database.
fn keep(database: &Path, kept: &Path, is_closed: bool) -> io::Result<bool> {
    let parts: &[&str] = if is_closed { &[""] } else { &["", "-wal", "-journal"] };
    let mut any = false;
    for part in parts {
        match fs::hard_link(with_suffix(database, part), with_suffix(kept, part)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            linked => {
                linked?;
                // Setting the mode of a symbolic link would change its target.
                if !with_suffix(kept, part).symlink_metadata()?.is_file() {
                    return Err(io::Error::other("it is not a regular file"));
                }
                fs::set_permissions(with_suffix(kept, part), Permissions::from_mode(0o600))?;
                any = true;
            }
        }
    }
    sync_directory_of(database)?;
    for part in ["-wal", "-journal", "-shm"] {
        match fs::remove_file(with_suffix(database, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory_of(database)?;
    Ok(any)
}
