//! Retention operations.

use super::repository::{self, InactiveConversation};
use crate::core::error::Result;
use crate::db::{Tx, lease};
use crate::features::conversations::repository as conversations;
use crate::security::Visibility;
use crate::state::AppState;
use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Maximum number of messages, and of events, removed in one transaction.
const ROWS: i64 = 1000;
/// Name of the lease. Two processes at a time would be harmless, but would duplicate work.
const NAME: &str = "retention";
/// Duration of the lease. Each transaction renews it, and takes much less time.
const LEASE: TimeDelta = TimeDelta::minutes(1);

/// Numbers of removed rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Number of conversations.
    pub conversations: u64,
    /// Number of their messages.
    pub messages: u64,
}

/// The retention job of one process. Only the process that holds the lease removes rows.
#[derive(Debug)]
pub struct Retention {
    app: AppState,
    /// Identifies this process in the lease.
    holder: String,
    has_lease: bool,
    removed: Removed,
}

impl Retention {
    /// The job for the process of `app`.
    pub fn new(app: &AppState) -> Self {
        let (holder, removed) = (Uuid::new_v4().to_string(), Removed::default());
        Self { app: app.clone(), holder, has_lease: false, removed }
    }

    /// Removes the conversations older than `RETENTION_DAYS` and the remaining rows of retired
    /// ones. Returns early if another process holds the lease or `stop` is cancelled.
    pub async fn remove_old(&mut self, stop: &CancellationToken) -> Result<()> {
        while !stop.is_cancelled() {
            let proceed =
                if let Some(id) = repository::retired(&self.app.db, self.app.clock.now()).await? {
                    self.shrink(id).await?
                } else if let Some(retention) = self.app.config.retention.conversations {
                    let before = self.app.clock.now() - retention;
                    match repository::oldest(&self.app.db, before, ROWS).await? {
                        Some(old) => self.remove(&old, before).await?,
                        None => false,
                    }
                } else {
                    false
                };
            if !proceed {
                break;
            }
        }
        Ok(())
    }

    /// Returns the numbers of rows removed since the last call, and resets them.
    pub fn take_removed(&mut self) -> Removed {
        std::mem::take(&mut self.removed)
    }

    /// Releases the lease, so that another process can take it immediately.
    pub async fn release(&mut self) -> Result<()> {
        if self.has_lease {
            let mut tx = self.app.db.begin().await?;
            lease::release(&mut tx, NAME, &self.holder).await?;
            tx.commit().await?;
            self.has_lease = false;
        }
        Ok(())
    }

    /// Removes a conversation, or retires it if it is long. Returns `false` without the lease.
    async fn remove(&mut self, old: &InactiveConversation, before: DateTime<Utc>) -> Result<bool> {
        let Some(mut tx) = self.begin().await? else { return Ok(false) };
        let mut removed = Removed::default();
        if old.last_seq <= ROWS && old.events <= ROWS {
            // `None` if a message was appended in the meantime.
            if let Some(messages) = repository::delete_old(&mut tx, old.id, before).await? {
                removed = Removed { conversations: 1, messages: messages.unsigned_abs() };
            }
        } else if conversations::lock(&mut tx, old.id, Visibility::All).await?
            && repository::is_old(&mut tx, old.id, before).await?
        {
            conversations::retire(&mut tx, old.id, self.app.clock.now()).await?;
        }
        self.commit(tx, old.id, removed).await
    }

    /// Removes one batch of rows of the retired conversation `id`, and the conversation after the
    /// last batch. Returns `false` without the lease.
    async fn shrink(&mut self, id: i64) -> Result<bool> {
        let Some(mut tx) = self.begin().await? else { return Ok(false) };
        let messages = repository::delete_messages(&mut tx, id, ROWS).await?;
        let events = repository::delete_events(&mut tx, id, ROWS).await?;
        let rows = ROWS.unsigned_abs();
        let is_last = messages < rows && events < rows;
        if is_last {
            repository::delete_retired(&mut tx, id).await?;
        }
        self.commit(tx, id, Removed { conversations: u64::from(is_last), messages }).await
    }

    /// Begins a transaction and takes or renews the lease. `None` if another process holds it.
    async fn begin(&mut self) -> Result<Option<Tx>> {
        let mut tx = self.app.db.begin_long().await?;
        let now = self.app.clock.now();
        self.has_lease = lease::take(&mut tx, NAME, &self.holder, now, now + LEASE).await?;
        Ok(self.has_lease.then_some(tx))
    }

    /// Commits, counts the removed rows, and notifies the conversation's subscribers.
    async fn commit(&mut self, tx: Tx, id: i64, removed: Removed) -> Result<bool> {
        tx.commit().await?;
        self.removed.conversations += removed.conversations;
        self.removed.messages += removed.messages;
        self.app.live.notify(id);
        Ok(true)
    }
}
