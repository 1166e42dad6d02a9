//! A lock that lets only one server at a time open an SQLite file.
//!
//! The lock is on a separate file beside the database, never on the database itself: SQLite's own
//! locks are released as soon as the process closes any descriptor of the database file. The
//! operating system releases the lock when the process ends, even after a crash.

use super::OpenError;
use super::private_file;
use crate::core::config::DatabaseUrl;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
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
        let path = beside(&database, ".lock");
        let failed = |cause| OpenError::File { path: path.clone(), cause };
        if let Some(directory) =
            database.parent().filter(|directory| !directory.as_os_str().is_empty())
            && !directory.exists()
        {
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

/// Returns whether `file` is the file at `path`. A symbolic link at `path` is not followed.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(is_same(&found?, &file.metadata()?)),
    }
}

/// Returns whether both are the same file: device and inode are equal.
pub(super) fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Resolves the symbolic links in `path`. If the file does not exist, resolves those of its folder.
pub(super) fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| in_resolved_folder(path))
}

/// Resolves the symbolic links in all components of `path` but the last.
pub(super) fn in_resolved_folder(path: &Path) -> PathBuf {
    let folder = || fs::canonicalize(folder_of(path)).ok();
    let in_folder = || Some(folder()?.join(path.file_name()?));
    in_folder().unwrap_or_else(|| path.to_owned())
}

/// Parent folder of a file; `.` for a bare file name.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Appends `ending` to the file name: `octopus.db` and `.lock` give `octopus.db.lock`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
