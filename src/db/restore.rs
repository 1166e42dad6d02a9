//! Puts what a backup has in the place of an SQLite database.
//!
//! Whatever happens meanwhile, the database is whole: the old one, or the new one.

use super::copy::{Copy, CopyError, sync_folder};
use super::lock::{beside, is_same};
use super::{Db, Lock};
use sqlx::sqlite::{SqliteConnectOptions, SqliteLockingMode};
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
use std::fs::{self, Permissions};
use std::io;
use std::iter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long others may take to close the database.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the old database is called afterwards, before the time.
const KEPT: &str = ".before-restore-";

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A program that takes no lock of ours is at it.
    #[error("another program has {} open; nothing was changed", .0.display())]
    InUse(PathBuf),
    /// The old database cannot be kept.
    #[error("cannot keep the old database as {}: {cause}; nothing was replaced", path.display())]
    Kept {
        /// What it would be called.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// The old database cannot be closed for good.
    #[error("cannot write the log of the old database back into it: {0}; nothing was replaced")]
    Old(sqlx::Error),
    /// The backup cannot be read, or what it has cannot be written.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// What was done.
#[derive(Debug)]
pub struct Restored {
    /// How large the database is now.
    pub bytes: u64,
    /// Where the old one is, if there was one.
    pub kept: Option<PathBuf>,
}

impl Lock {
    /// Puts what `backup` has in the place of the database that this is the lock of. The old one is
    /// kept beside it, with `time` in its name.
    pub async fn restore(&self, backup: &Db, time: &str) -> Result<Restored, RestoreError> {
        let database = self.database();
        let Db::Sqlite { read, .. } = backup else {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, "it is no file");
            return Err(CopyError::File { path: database.to_owned(), cause }.into());
        };
        let options = (*read.options()).clone().disable_statement_logging();
        let mut reading = options.connect().await.map_err(CopyError::from)?;
        let copy = Copy::write(&mut reading, database).await;
        reading.close().await.map_err(CopyError::from)?;
        let copy = copy?;
        let kept = free_name(&beside(database, &format!("{KEPT}{time}")));
        let old = close_for_good(database).await?;
        let is_kept = keep(database, &kept, old.is_some())
            .map_err(|cause| RestoreError::Kept { path: kept.clone(), cause })?;
        let bytes = copy.name(true).await?;
        // Until now nobody else could write the old one, and take it for the database. It is whole
        // and kept: whatever its end says, the new one is in its place.
        if let Some(old) = old {
            let _ = old.close().await;
        }
        Ok(Restored { bytes, kept: is_kept.then_some(kept) })
    }

    /// Removes the second name of the database that a restore leaves when it is cut off between
    /// keeping the old one and replacing it. It would look like a copy, and is none.
    pub fn clear_leftovers(&self) -> io::Result<()> {
        let Ok(database) = fs::metadata(self.database()) else { return Ok(()) };
        let name = self.database().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = super::lock::folder_of(self.database());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let is_kept = entry.file_name().to_string_lossy().starts_with(&(name.clone() + KEPT));
            let has_log = ["-wal", "-journal"].iter().any(|e| beside(&entry.path(), e).exists());
            if is_kept && !has_log && is_same(&entry.metadata()?, &database) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Writes the log of the old database back into it, and takes it for ourselves: a connection that
/// keeps all others out. `None` where there is no database that SQLite could open.
async fn close_for_good(database: &Path) -> Result<Option<SqliteConnection>, RestoreError> {
    if !database.exists() {
        return Ok(None);
    }
    let take = async {
        let options = SqliteConnectOptions::new().filename(database).busy_timeout(PATIENCE);
        let options = options.locking_mode(SqliteLockingMode::Exclusive);
        let mut connection = options.disable_statement_logging().connect().await?;
        // This works for the only one who has it open alone, and removes the log.
        connection.execute("PRAGMA journal_mode = DELETE").await?;
        connection.execute("BEGIN EXCLUSIVE").await?;
        Ok(connection)
    };
    match take.await {
        Ok(_) if beside(database, "-wal").exists() => Err(RestoreError::InUse(database.to_owned())),
        Ok(connection) => Ok(Some(connection)),
        Err(sqlx::Error::Database(error)) => match primary(error.code().as_deref()) {
            BUSY | LOCKED => Err(RestoreError::InUse(database.to_owned())),
            CORRUPT | NOTADB => Ok(None),
            _ => Err(RestoreError::Old(sqlx::Error::Database(error))),
        },
        Err(error) => Err(RestoreError::Old(error)),
    }
}

/// `name`, or the first of `name-2`, `name-3` and so on that nothing has.
fn free_name(name: &Path) -> PathBuf {
    let numbered = (2..).map(|n: u32| beside(name, &format!("-{n}")));
    let is_free = |name: &PathBuf| {
        ["", "-wal"].iter().all(|part| beside(name, part).symlink_metadata().is_err())
    };
    iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_else(|| name.to_owned())
}

const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const CORRUPT: i32 = 11;
const NOTADB: i32 = 26;

/// SQLite's code without what makes it more exact.
fn primary(code: Option<&str>) -> i32 {
    code.and_then(|code| code.parse().ok()).map_or(0, |code: i32| code & 0xff)
}

/// Gives the old database a second name, which stays when another file gets its first one; whether
/// there is one. Where SQLite could not open it, its log goes along, or the new one would get that.
fn keep(database: &Path, kept: &Path, is_closed: bool) -> io::Result<bool> {
    let parts: &[&str] = if is_closed { &[""] } else { &["", "-wal", "-journal"] };
    let mut any = false;
    for part in parts {
        match fs::hard_link(beside(database, part), beside(kept, part)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            linked => {
                linked?;
                // Of a symbolic link, the mode is that of what it names.
                if !beside(kept, part).symlink_metadata()?.is_file() {
                    return Err(io::Error::other("it is no file"));
                }
                fs::set_permissions(beside(kept, part), Permissions::from_mode(0o600))?;
                any = true;
            }
        }
    }
    sync_folder(database)?;
    for part in ["-wal", "-journal", "-shm"] {
        match fs::remove_file(beside(database, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_folder(database)?;
    Ok(any)
}
