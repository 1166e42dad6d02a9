//! A lock that lets only one server at a time open an SQLite file.
//!
//! The lock is on a separate file beside the database, never on the database itself: SQLite's own
//! locks are released as soon as the process closes any descriptor of the database file. The
//! operating system releases the lock when the process ends, even after a crash.

use crate::core::config::DatabaseUrl;
use crate::db::error::OpenError;
use crate::db::files::{directory_of, is_at, resolved, with_suffix};
use crate::db::private_file;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// The exclusive right to serve or to replace an SQLite file, held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    database: PathBuf,
}

impl Lock {
    /// Locks the database at `url`. Returns `None` for Postgres, which several servers may share.
    pub fn take(url: &DatabaseUrl) -> Result<Option<Self>, OpenError> {
        match url {
            DatabaseUrl::Sqlite(path) => Self::of_file(path).map(Some),
            DatabaseUrl::Postgres(_) => Ok(None),
        }
    }

    /// Locks the SQLite file at `database`. Symbolic links are resolved first: all paths of a file
    /// share one lock. Fails with [`OpenError::InUse`] if another process holds it.
    pub fn of_file(database: &Path) -> Result<Self, OpenError> {
        let database = resolved(database);
        let path = with_suffix(&database, ".lock");
        let failed = |cause| OpenError::file(&path, &cause);
        let directory = directory_of(&database);
        if !directory.exists() {
            return Err(OpenError::NoDirectory(directory.to_owned()));
        }
        loop {
            let file = private_file::open_or_create(&path).map_err(failed)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path)),
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
                Ok(()) => {}
            }
            // The previous holder may have removed the file after it was opened here. A lock on a
            // removed file excludes no other process.
            if is_at(&file, &path).map_err(failed)? {
                return Ok(Self { file, path, database });
            }
        }
    }

    /// Path of the locked database, with symbolic links resolved.
    pub fn database(&self) -> &Path {
        &self.database
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the lock is released: afterwards the path may name another process's lock file.
        if is_at(&self.file, &self.path).unwrap_or_default() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
