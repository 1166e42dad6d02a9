//! Lets one server at a time have an SQLite file.
//!
//! The lock is on a file of its own beside the database, never on the database: SQLite's own locks
//! on it would go with whatever descriptor of it the process closes first. The system takes the
//! lock back when the process ends, however that happens.

use super::OpenError;
use super::private_file;
use crate::core::config::DatabaseUrl;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The right to serve an SQLite file, or to replace it, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    database: PathBuf,
}

impl Lock {
    /// Takes the lock of the database at `url`. Postgres has none: many servers may be at one.
    pub fn take(url: &DatabaseUrl) -> Result<Option<Self>, OpenError> {
        match url {
            DatabaseUrl::Sqlite(path) => Self::of_file(path).map(Some),
            DatabaseUrl::Postgres(_) => Ok(None),
        }
    }

    /// Takes the lock of the SQLite file at `database`, by whatever path it is called.
    pub fn of_file(database: &Path) -> Result<Self, OpenError> {
        let database = resolved(database);
        let path = beside(&database, ".lock");
        let failed = |cause| OpenError::File { path: path.clone(), cause };
        loop {
            let file = private_file::open_or_create(&path).map_err(failed)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path)),
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
                Ok(()) => {}
            }
            // Whoever had it before may have removed the file since it was opened: then this is
            // the lock of nothing.
            if is_at(&file, &path).map_err(failed)? {
                return Ok(Self { file, path, database });
            }
        }
    }

    /// The file it is the lock of, without symbolic links.
    pub fn database(&self) -> &Path {
        &self.database
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is locked, so that nobody else's file goes.
        if is_at(&self.file, &self.path).unwrap_or_default() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether `file` is the one that `path` names, by itself and not by a symbolic link.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(is_same(&found?, &file.metadata()?)),
    }
}

/// Whether two names are of one file.
pub(super) fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The path without symbolic links; of a file that is not there yet, that of its folder.
pub(super) fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| in_resolved_folder(path))
}

/// The path without symbolic links before its last part, which may be one.
pub(super) fn in_resolved_folder(path: &Path) -> PathBuf {
    let folder = || fs::canonicalize(folder_of(path)).ok();
    let in_folder = || Some(folder()?.join(path.file_name()?));
    in_folder().unwrap_or_else(|| path.to_owned())
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `octopus.db.lock` for `octopus.db` and `.lock`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
