//! Adds messages to SQLite's full-text index in batches. FTS5 writes a segment for each savepoint
//! and merges segments later; indexing each message on its own took a third of the time of a POST.
//! A search also reads the messages that are not indexed yet ([`super::service`]). On Postgres, GIN
//! batches its updates itself.

use super::batch_size::{BATCH_AFTER_WRITE, BatchSize};
use super::repository;
use crate::core::metrics::QUEUE;
use crate::db::{Db, Tx};
use sqlx::Result;
use tokio_util::sync::CancellationToken;

/// Size of the first batch. Batches double up to [`LARGEST_BATCH`]: each one blocks other writers
/// while it runs, and waits for them before it starts.
const FIRST_BATCH: BatchSize = BatchSize { messages: 1000, bytes: 128 * 1024 };
const LARGEST_BATCH: BatchSize = BatchSize { messages: 16_000, bytes: 2 * 1024 * 1024 };
/// A write of this size indexes older messages itself, because the job could not keep up.
const INDEX_WITH_WRITE_FROM: BatchSize = BatchSize { messages: 16, bytes: 16 * 1024 };

/// Indexes all unindexed messages. Stops early if `stop` is cancelled.
pub async fn catch_up(db: &Db, stop: &CancellationToken) -> Result<()> {
    let unindexed = repository::count_unindexed(db).await?;
    metrics::gauge!(QUEUE, "queue" => "search").set(unindexed);
    if unindexed == 0 {
        return Ok(());
    }
    let mut limit = FIRST_BATCH;
    while !stop.is_cancelled() {
        let mut tx = db.begin_long().await?;
        let indexed = index_part(&mut tx, limit).await?;
        tx.commit().await?;
        if !indexed.reaches(limit) {
            break;
        }
        if !limit.reaches(LARGEST_BATCH) {
            limit = limit.twice();
        }
    }
    Ok(())
}

/// Indexes the oldest unindexed messages until `limit` is reached in messages or bytes. Returns
/// the size of the indexed messages.
pub async fn index_part(tx: &mut Tx, limit: BatchSize) -> Result<BatchSize> {
    let Some(next) = repository::next_unindexed(tx, limit).await? else {
        return Ok(BatchSize::default());
    };
    repository::index_up_to(tx, next.id).await?;
    Ok(next.part)
}

/// After a write that [is large](BatchSize::is_large), indexes twice as much as was `written`, in
/// separate transactions, so that other writers can run in between. If this fails, the job indexes
/// the rest.
pub async fn index_backlog_after(db: &Db, written: BatchSize) {
    if matches!(db, Db::Postgres { .. }) {
        return;
    }
    if let Err(error) = index_in_batches(db, written.twice()).await {
        tracing::warn!(event = "search.index_behind", %error, "cannot index messages; the job retries");
    }
}

async fn index_in_batches(db: &Db, due: BatchSize) -> Result<()> {
    let mut done = BatchSize::default();
    while !done.reaches(due) {
        let mut tx = db.begin_long().await?;
        let indexed = index_part(&mut tx, BATCH_AFTER_WRITE).await?;
        tx.commit().await?;
        if indexed == BatchSize::default() {
            break;
        }
        let messages = done.messages.saturating_add(indexed.messages);
        done = BatchSize { messages, bytes: done.bytes.saturating_add(indexed.bytes) };
    }
    Ok(())
}

/// After a write of many messages, indexes twice as much as was `written`, so that the backlog
/// shrinks however much is written.
pub async fn index_backlog(tx: &mut Tx, written: BatchSize) -> Result<()> {
    if written.reaches(INDEX_WITH_WRITE_FROM) {
        index_part(tx, written.twice()).await?;
    }
    Ok(())
}
