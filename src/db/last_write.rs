//! Records the outcome of the last write.

use crate::core::transient_error::TransientError;
use parking_lot::Mutex;
use sqlx::Result;
use std::sync::Arc;

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

    /// The recorded error.
    pub(super) fn get(&self) -> Option<TransientError> {
        *self.0.lock()
    }

    /// Records an error, or clears it.
    pub(super) fn set(&self, transient_error: Option<TransientError>) {
        *self.0.lock() = transient_error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

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
