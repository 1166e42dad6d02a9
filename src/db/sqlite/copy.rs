//! Copies an SQLite database. A copy is complete or absent.

use crate::db::file_fault::{self, FileFault};
use crate::db::files::{in_resolved_directory, is_at, sync_directory_of, with_suffix};
use crate::db::private_file;
use sqlx::SqliteConnection;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempPath;
use tokio::task::spawn_blocking;

/// Suffix of a copy until it is complete.
pub(super) const UNFINISHED: &str = ".unfinished";

/// Why no copy was made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The target exists.
    #[error("{} already exists and was not changed; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// Another process is writing the same copy.
    #[error("another process is writing {}", .0.display())]
    Busy(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}: {cause}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        cause: io::Error,
    },
    /// SQLite failed.
    #[error("cannot copy the database: {0}")]
    Driver(#[from] sqlx::Error),
}

impl CopyError {
    /// The error of the operating system at `path`, with its cause and remedy.
    fn file(path: &Path, cause: &io::Error) -> Self {
        let FileFault { path, cause } = file_fault::explained(path, cause);
        Self::File { path, cause }
    }
}

/// A complete copy under its temporary name. Dropping it deletes the file.
pub(super) struct Copy {
    unfinished: TempPath,
    to: PathBuf,
    /// Locked against other writers. The last field: the lock must outlast the deletion of the
    /// file.
    file: File,
}

impl Copy {
    /// Writes the state that `connection` sees to a file beside `to`, which has mode 600 from the
    /// start.
    pub(super) async fn write(
        connection: &mut SqliteConnection,
        to: &Path,
    ) -> Result<Self, CopyError> {
        let copy = Self::begin(to)?;
        let path = copy.unfinished.to_str().ok_or_else(|| copy.failed(&not_utf8()))?;
        sqlx::query("VACUUM INTO $1").bind(path).execute(&mut *connection).await?;
        Ok(copy)
    }

    /// Creates an empty file in place of any leftover of an earlier attempt.
    fn begin(to: &Path) -> Result<Self, CopyError> {
        let to = in_resolved_directory(to);
        let path = with_suffix(&to, UNFINISHED);
        let failed = |cause| CopyError::file(&path, &cause);
        loop {
            remove_leftover(&path)?;
            let file = match private_file::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created.map_err(failed)?,
            };
            lock(&file, &path)?;
            if !is_at(&file, &path).map_err(failed)? {
                continue; // another process removed it as a leftover
            }
            let _ = fs::remove_file(with_suffix(&path, "-journal"));
            let unfinished = TempPath::try_from_path(&path).map_err(failed)?;
            return Ok(Self { unfinished, to, file });
        }
    }

    fn failed(&self, cause: &io::Error) -> CopyError {
        CopyError::file(&self.unfinished, cause)
    }

    /// Syncs the copy and renames it to its final name. Returns its size in bytes.
    pub(super) async fn name(self, replace: bool) -> Result<u64, CopyError> {
        let to = self.to.clone();
        // Syncing blocks the thread.
        let named = spawn_blocking(move || self.name_blocking(replace)).await;
        named.unwrap_or_else(|join_error| {
            Err(CopyError::File { path: to, cause: io::Error::other(join_error) })
        })
    }

    fn name_blocking(self, replace: bool) -> Result<u64, CopyError> {
        if !is_at(&self.file, &self.unfinished).map_err(|cause| self.failed(&cause))? {
            return Err(self.failed(&io::Error::other("another process replaced this file")));
        }
        self.file.sync_all().map_err(|cause| self.failed(&cause))?;
        let bytes = self.file.metadata().map_err(|cause| self.failed(&cause))?.len();
        let failed = |cause: io::Error| match cause.kind() {
            io::ErrorKind::AlreadyExists => CopyError::Exists(self.to.clone()),
            _ => CopyError::file(&self.to, &cause),
        };
        let named = if replace {
            self.unfinished.persist(&self.to)
        } else {
            self.unfinished.persist_noclobber(&self.to)
        };
        named.map_err(|refused| failed(refused.error))?;
        sync_directory_of(&self.to).map_err(failed)?;
        Ok(bytes)
    }
}

/// Removes the unfinished copy at `path`, if there is one. Fails with [`CopyError::Busy`] while
/// another process is writing it. Does not follow a symbolic link or change the target of a hard
/// link: a new copy is always a new file.
pub fn remove_leftover(path: &Path) -> Result<(), CopyError> {
    let failed = |cause| CopyError::file(path, &cause);
    let file = match private_file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    lock(&file, path)?;
    // Otherwise it was renamed or removed meanwhile.
    if is_at(&file, path).map_err(failed)? {
        fs::remove_file(path).map_err(failed)?;
    }
    Ok(())
}

fn lock(file: &File, path: &Path) -> Result<(), CopyError> {
    file.try_lock().map_err(|refused| match refused {
        TryLockError::WouldBlock => CopyError::Busy(path.to_owned()),
        TryLockError::Error(cause) => CopyError::File { path: path.to_owned(), cause },
    })
}

fn not_utf8() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "SQLite accepts only UTF-8 paths")
}
