//! How the last write went, and whether the next would work.

use super::{Db, lease, query};
use crate::core::trouble::Trouble;
use chrono::{DateTime, Utc};
use sqlx::Result;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that a full disk must have room for again, beside what the log has.
const ROOM: usize = 1024 * 1024;

/// What was in the way of a write since one was committed. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastWrite(Arc<Mutex<Option<Trouble>>>);

impl LastWrite {
    /// Passes on how something went, and remembers what was in its way.
    pub(super) fn note<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && let Some(trouble) = Trouble::of(error)
            // Whoever shared the transaction hears only that it is gone.
            && (trouble, self.get()) != (Trouble::Away, Some(Trouble::Full))
        {
            self.set(Some(trouble));
        }
        result
    }

    /// The same of a commit. One that worked shows that all is well, but for a full disk: in its
    /// log the database may have room for some writes and not for others.
    pub(super) fn note_end(&self, result: Result<()>) -> Result<()> {
        if result.is_ok() && self.get() != Some(Trouble::Full) {
            self.set(None);
        }
        self.note(result)
    }

    fn get(&self) -> Option<Trouble> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, trouble: Option<Trouble>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

impl Db {
    /// Tries whether a write would work. As long as none has failed it is rolled back, and so never
    /// reaches the disk: that shows a lock, but no full disk. After a failure, until one is
    /// committed, something is written and taken away again.
    pub async fn try_writing(&self, now: DateTime<Utc>) -> Result<()> {
        const NAME: &str = "ready";
        const UPDATE: &str = "UPDATE installation SET version = version WHERE id = 1";
        let (Self::Sqlite { last_write, .. } | Self::Postgres { last_write, .. }) = self;
        let trouble = last_write.get();
        let mut tx = self.begin().await?;
        if trouble.is_none() {
            query(&mut tx, UPDATE).execute().await?;
            return tx.rollback().await;
        }
        // SQLite writes nothing where an UPDATE changes nothing.
        lease::take(&mut tx, NAME, NAME, now, now).await?;
        lease::release(&mut tx, NAME, NAME).await?;
        tx.commit().await?;
        if let (Some(Trouble::Full), Self::Sqlite { path, .. }) = (trouble, self) {
            let path = path.clone();
            let found = tokio::task::spawn_blocking(move || find_room(&path)).await;
            found.map_err(|_| sqlx::Error::WorkerCrashed)??;
        }
        last_write.set(None);
        Ok(())
    }
}

/// Fails where the disk of the file has no room for more than a few writes.
fn find_room(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let mut file = tempfile::tempfile_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(&vec![0; ROOM])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_remembered_when_others_lose_their_part_of_the_transaction() {
        let last = LastWrite::default();
        let full = sqlx::Error::Io(io::ErrorKind::StorageFull.into());
        last.note::<()>(Err(full)).unwrap_err();
        last.note_end(Err(sqlx::Error::WorkerCrashed)).unwrap_err();
        last.note_end(Ok(())).unwrap();
        assert_eq!(last.get(), Some(Trouble::Full));
    }
}
