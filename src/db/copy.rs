//! Writes a copy of an SQLite database: whole, or not there.

use super::lock::{beside, folder_of, in_resolved_folder, is_at};
use super::private_file;
use sqlx::SqliteConnection;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempPath;
use tokio::task::spawn_blocking;

/// What a copy is called until it is whole.
pub(super) const UNFINISHED: &str = ".unfinished";

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Something has that name already.
    #[error("{} is there already, and was left as it is; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// Another process writes the same copy.
    #[error("another process is writing {}", .0.display())]
    Busy(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// SQLite failed.
    #[error("cannot copy the database: {0}")]
    Driver(#[from] sqlx::Error),
}

/// A copy that is whole and has another name yet. Without being named, it goes when it is dropped.
pub(super) struct Copy {
    unfinished: TempPath,
    to: PathBuf,
    /// Locked, so that nobody else writes it; last, as it must be so until the file is gone.
    file: File,
}

impl Copy {
    /// Writes what `connection` sees to a file beside `to`, for its owner alone from the start.
    pub(super) async fn write(
        connection: &mut SqliteConnection,
        to: &Path,
    ) -> Result<Self, CopyError> {
        let copy = Self::begin(to)?;
        let path = copy.unfinished.to_str().ok_or_else(|| copy.failed(not_utf8()))?;
        sqlx::query("VACUUM INTO $1").bind(path).execute(&mut *connection).await?;
        Ok(copy)
    }

    /// An empty file; what an earlier attempt left is gone.
    fn begin(to: &Path) -> Result<Self, CopyError> {
        let to = in_resolved_folder(to);
        let path = beside(&to, UNFINISHED);
        let failed = |cause| CopyError::File { path: path.clone(), cause };
        loop {
            remove_leftover(&path)?;
            let file = match private_file::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created.map_err(failed)?,
            };
            lock(&file, &path)?;
            if !is_at(&file, &path).map_err(failed)? {
                continue; // another process took it for a leftover
            }
            let _ = fs::remove_file(beside(&path, "-journal"));
            let unfinished = TempPath::try_from_path(&path).map_err(failed)?;
            return Ok(Self { unfinished, to, file });
        }
    }

    fn failed(&self, cause: io::Error) -> CopyError {
        CopyError::File { path: self.unfinished.to_path_buf(), cause }
    }

    /// Gives it its name, when it is on the disk; how many bytes it has.
    pub(super) async fn name(self, replace: bool) -> Result<u64, CopyError> {
        let to = self.to.clone();
        // It waits for the disk.
        let named = spawn_blocking(move || self.name_now(replace)).await;
        named.unwrap_or_else(|ended| {
            Err(CopyError::File { path: to, cause: io::Error::other(ended) })
        })
    }

    fn name_now(self, replace: bool) -> Result<u64, CopyError> {
        if !is_at(&self.file, &self.unfinished).map_err(|cause| self.failed(cause))? {
            return Err(self.failed(io::Error::other("another file was put in its place")));
        }
        self.file.sync_all().map_err(|cause| self.failed(cause))?;
        let bytes = self.file.metadata().map_err(|cause| self.failed(cause))?.len();
        let failed = |cause: io::Error| match cause.kind() {
            io::ErrorKind::AlreadyExists => CopyError::Exists(self.to.clone()),
            _ => CopyError::File { path: self.to.clone(), cause },
        };
        let named = if replace {
            self.unfinished.persist(&self.to)
        } else {
            self.unfinished.persist_noclobber(&self.to)
        };
        named.map_err(|refused| failed(refused.error))?;
        sync_folder(&self.to).map_err(failed)?;
        Ok(bytes)
    }
}

/// Removes an unfinished copy at `path`, if one is there and nobody is writing it. Neither follows
/// a symbolic link nor touches what a hard link names: a new copy is always a new file.
pub fn remove_leftover(path: &Path) -> Result<(), CopyError> {
    let failed = |cause| CopyError::File { path: path.to_owned(), cause };
    let file = match private_file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    lock(&file, path)?;
    // Otherwise it has got its name meanwhile, or was removed.
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

/// Makes the name of `path` last, too.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn not_utf8() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "SQLite takes paths of UTF-8 alone")
}
