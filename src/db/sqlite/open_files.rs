//! Detects that a file of an open SQLite database was removed or replaced.
//!
//! SQLite keeps writing to a removed file, and everything written is lost when the process ends.
//! The files are therefore compared, by device and inode, with those that were opened: before each
//! write, after each commit, and every half second by a job. While one differs, writes fail, and no
//! write is acknowledged. Reads continue on the open files.
//!
//! The write-ahead log and its index are the same files as long as any connection is open.

use crate::core::transient_error::LostFile;
use crate::db::files::{resolved, with_suffix};
use parking_lot::Mutex;
use sqlx::Result;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of an open database. Clones share the state.
#[derive(Clone, Debug)]
pub struct OpenFiles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Vec<OpenFile>,
    /// The lost file that was logged; `None` while all files are in place.
    lost: Mutex<Option<LostFile>>,
}

/// A file that was opened.
#[derive(Debug)]
struct OpenFile {
    kind: LostFile,
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OpenFiles {
    /// Records the files of the database at `path`, which has just been opened. A file that does
    /// not exist is not watched.
    pub(crate) fn of(path: &Path) -> Self {
        let database = resolved(path);
        let files = [
            (LostFile::Database, path.to_owned()),
            (LostFile::WriteAheadLog, with_suffix(&database, "-wal")),
            (LostFile::LogIndex, with_suffix(&database, "-shm")),
        ];
        let files = files.into_iter().filter_map(|(kind, path)| {
            let found = fs::metadata(&path).ok()?;
            Some(OpenFile { kind, path, device: found.dev(), inode: found.ino() })
        });
        Self(Arc::new(Inner { files: files.collect(), lost: Mutex::default() }))
    }

    /// Fails with [`LostFile`] if a file was removed or replaced. Logs the loss once, and its end.
    pub(crate) fn check(&self) -> Result<()> {
        let missing = self.0.files.iter().find(|file| !file.is_in_place());
        let kind = missing.map(|file| file.kind);
        let before = std::mem::replace(&mut *self.0.lost.lock(), kind);
        match (before, missing) {
            (None, Some(file)) => file.log_loss(),
            (Some(_), None) => tracing::warn!(
                event = "database.file_restored",
                "the files of the database are in place again; writes are accepted"
            ),
            _ => {}
        }
        kind.map_or(Ok(()), |kind| Err(sqlx::Error::Io(kind.into())))
    }
}

impl OpenFile {
    /// Returns whether the path still names the file. An error other than "not found" proves
    /// nothing: the file may still be there.
    fn is_in_place(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(found) => self.is(&found),
            Err(error) => {
                !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
        }
    }

    fn is(&self, found: &Metadata) -> bool {
        (found.dev(), found.ino()) == (self.device, self.inode)
    }

    fn log_loss(&self) {
        let what = if self.path.symlink_metadata().is_ok() { "replaced" } else { "removed" };
        tracing::error!(
            event = "database.file_lost",
            file = %self.path.display(),
            "{} was {what} while the server uses it: writes are refused with 503, reads continue. \
             Move the original file back, and writes are accepted again. If it was deleted, export \
             what you need over the API before you stop the server: what only the open file \
             contains is lost then, and `octopus backup` cannot read it. To use another file, \
             restart the server",
            self.path.display()
        );
    }
}
