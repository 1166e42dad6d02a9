//! Records the outcome of the last write and tests whether the next write would succeed.

use super::{Db, lease, query};
use crate::core::transient_error::TransientError;
use chrono::{DateTime, Utc};
use sqlx::Result;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that must fit on the disk before a full disk counts as recovered, in addition to the free
/// space in the write-ahead log.
const PROBE_BYTES: usize = 1024 * 1024;

/// The error of the last failed write, until a write is committed. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastWrite(Arc<Mutex<Option<TransientError>>>);

impl LastWrite {
    /// Returns `result` unchanged and records its error if it is transient.
    pub(super) fn note<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && let Some(transient_error) = TransientError::of(error)
            // Other transactions of the commit group fail without the original cause.
            && (transient_error, self.get()) != (TransientError::Unreachable, Some(TransientError::DiskFull))
        {
            self.set(Some(transient_error));
        }
        result
    }

    /// Like [`Self::note`], for a commit. A successful commit clears the recorded error, except a
    /// full disk: the free space in the write-ahead log may suffice for some writes only.
    pub(super) fn note_end(&self, result: Result<()>) -> Result<()> {
        if result.is_ok() && self.get() != Some(TransientError::DiskFull) {
            self.set(None);
        }
        self.note(result)
    }

    fn get(&self) -> Option<TransientError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, transient_error: Option<TransientError>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = transient_error;
    }
}

impl Db {
    /// Tests whether a write would succeed. If no write has failed, the test is rolled back and
    /// never reaches the disk: it detects a lock, but not a full disk. After a failure, and until a
    /// write is committed, the test inserts a row, deletes it, and commits.
    pub async fn try_writing(&self, now: DateTime<Utc>) -> Result<()> {
        const NAME: &str = "ready";
        const UPDATE: &str = "UPDATE installation SET version = version WHERE id = 1";
        let (Self::Sqlite { last_write, .. } | Self::Postgres { last_write, .. }) = self;
        let transient_error = last_write.get();
        let mut tx = self.begin().await?;
        if transient_error.is_none() {
            query(&mut tx, UPDATE).execute().await?;
            return tx.rollback().await;
        }
        // SQLite writes nothing to the disk for an UPDATE that changes no value.
        lease::take(&mut tx, NAME, NAME, now, now).await?;
        lease::release(&mut tx, NAME, NAME).await?;
        tx.commit().await?;
        if let (Some(TransientError::DiskFull), Self::Sqlite { path, .. }) = (transient_error, self)
        {
            let path = path.clone();
            let found = tokio::task::spawn_blocking(move || probe_space(&path)).await;
            found.map_err(|_| sqlx::Error::WorkerCrashed)??;
        }
        last_write.set(None);
        Ok(())
    }
}

/// Fails if the disk of the file has less than [`PROBE_BYTES`] of free space.
fn probe_space(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let mut file = tempfile::tempfile_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(&vec![0; PROBE_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_remembered_when_the_rest_of_the_commit_group_fails() {
        let last = LastWrite::default();
        let full = sqlx::Error::Io(io::ErrorKind::StorageFull.into());
        last.note::<()>(Err(full)).unwrap_err();
        last.note_end(Err(sqlx::Error::WorkerCrashed)).unwrap_err();
        last.note_end(Ok(())).unwrap();
        assert_eq!(last.get(), Some(TransientError::DiskFull));
    }
}
