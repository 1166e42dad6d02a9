//! Removes conversations in which nothing was said for long.
//!
//! A short one goes in one transaction. A long one is retired first: marked, so that nobody finds
//! it any more, can read half of it or say anything in it; then its rows go, some at a time, and
//! others who write have their turn in between. What is left when a server ends is removed by the
//! next.

mod repository;

use crate::core::error::Result;
use crate::db::{Tx, lease};
use crate::features::conversations::repository as conversations;
use crate::security::Reach;
use crate::state::AppState;
use chrono::{DateTime, TimeDelta, Utc};
use repository::Old;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Most messages, and most events, removed in one transaction.
const ROWS: i64 = 1000;
/// The lease of who removes. Two at once would do no harm, only work in vain.
const NAME: &str = "retention";
/// How long it lasts: much longer than one transaction, in each of which it is renewed.
const LEASE: TimeDelta = TimeDelta::minutes(1);

/// What is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Conversations.
    pub conversations: u64,
    /// Their messages.
    pub messages: u64,
}

/// One process's part in removing. Only the process with the lease has something to do.
#[derive(Debug)]
pub struct Retention {
    app: AppState,
    /// Who it is, to the others.
    holder: String,
    has_lease: bool,
    removed: Removed,
}

impl Retention {
    /// The part of the process of `app`.
    pub fn new(app: &AppState) -> Self {
        let (holder, removed) = (Uuid::new_v4().to_string(), Removed::default());
        Self { app: app.clone(), holder, has_lease: false, removed }
    }

    /// Removes every conversation that is older than `RETENTION_DAYS`, and what is left of those
    /// that are retired, unless another process does.
    pub async fn remove_old(&mut self, stop: &CancellationToken) -> Result<()> {
        while !stop.is_cancelled() {
            let goes_on =
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
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// What was removed since this was asked last.
    pub fn take_removed(&mut self) -> Removed {
        std::mem::take(&mut self.removed)
    }

    /// Lets another process go on at once.
    pub async fn release(&mut self) -> Result<()> {
        if self.has_lease {
            let mut tx = self.app.db.begin().await?;
            lease::release(&mut tx, NAME, &self.holder).await?;
            tx.commit().await?;
            self.has_lease = false;
        }
        Ok(())
    }

    /// Removes a conversation, or retires it if it is a long one. `false` without the lease.
    async fn remove(&mut self, old: &Old, before: DateTime<Utc>) -> Result<bool> {
        let Some(mut tx) = self.begin().await? else { return Ok(false) };
        let mut removed = Removed::default();
        if old.last_seq <= ROWS && old.events <= ROWS {
            // Unless something was said in it just now.
            if let Some(messages) = repository::delete_old(&mut tx, old.id, before).await? {
                removed = Removed { conversations: 1, messages: messages.unsigned_abs() };
            }
        } else if conversations::lock(&mut tx, old.id, Reach::Everything).await?
            && repository::is_old(&mut tx, old.id, before).await?
        {
            conversations::retire(&mut tx, old.id, self.app.clock.now()).await?;
        }
        self.commit(tx, old.id, removed).await
    }

    /// Removes a part of conversation `id`, which is retired, or what is left of it. `false`
    /// without the lease.
    async fn shrink(&mut self, id: i64) -> Result<bool> {
        let Some(mut tx) = self.begin().await? else { return Ok(false) };
        let messages = repository::delete_messages(&mut tx, id, ROWS).await?;
        let events = repository::delete_events(&mut tx, id, ROWS).await?;
        let rows = ROWS.unsigned_abs();
        let is_end = messages < rows && events < rows;
        if is_end {
            repository::delete_retired(&mut tx, id).await?;
        }
        self.commit(tx, id, Removed { conversations: u64::from(is_end), messages }).await
    }

    /// A transaction of who has the lease.
    async fn begin(&mut self) -> Result<Option<Tx>> {
        let mut tx = self.app.db.begin_long().await?;
        let now = self.app.clock.now();
        self.has_lease = lease::take(&mut tx, NAME, &self.holder, now, now + LEASE).await?;
        Ok(self.has_lease.then_some(tx))
    }

    /// Commits, counts what was removed, and tells those who watch the conversation.
    async fn commit(&mut self, tx: Tx, id: i64, removed: Removed) -> Result<bool> {
        tx.commit().await?;
        self.removed.conversations += removed.conversations;
        self.removed.messages += removed.messages;
        self.app.live.happened(id);
        Ok(true)
    }
}
