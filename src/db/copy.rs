//! Writes a copy of an SQLite database: whole, or not there.

use super::connect::private;
use super::lock::{beside, folder_of, is_at, resolved};
use sqlx::SqliteConnection;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
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
        let to = resolved(to);
        let path = beside(&to, UNFINISHED);
        let failed = |cause| CopyError::File { path: path.clone(), cause };
        loop {
            let file = private().create(true).open(&path).map_err(failed)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(CopyError::Busy(path)),
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
                Ok(()) => {}
            }
            if !is_at(&file, &path).map_err(failed)? {
                continue; // it has got its name meanwhile, or was removed
            }
            file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
            file.set_len(0).map_err(failed)?;
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

/// Makes the name of `path` last, too.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn not_utf8() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "SQLite takes paths of UTF-8 alone")
}
