//! Tests whether the next write would succeed.

use super::files::directory_of;
use super::handle::Db;
use super::lease;
use super::query::query;
use crate::core::transient_error::TransientError;
use chrono::{DateTime, Utc};
use sqlx::Result;
use std::io::{self, Write};
use std::path::Path;

/// Bytes that must fit on the disk before a full disk counts as recovered, in addition to the free
/// space in the write-ahead log.
const PROBE_BYTES: usize = 1024 * 1024;

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
    let mut file = tempfile::tempfile_in(directory_of(path))?;
    file.write_all(&vec![0; PROBE_BYTES])
}
