//! Notifications for other processes on the same Postgres.

use crate::db::Db;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use tokio::sync::Notify;

/// The Postgres notification channel.
pub(super) const CHANNEL: &str = "octopus_live";
/// Maximum number of topics waiting to be sent.
const MAX_TOPICS: usize = 10_000;
/// Maximum number of topics in one notification, which Postgres limits to 8000 bytes.
const MAX_BATCH: usize = 300;

/// Changed topics that other processes are not yet notified of.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: Mutex<BTreeSet<i64>>,
    wakeup: Notify,
}

impl Outgoing {
    pub(super) fn add(&self, topic: i64) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < MAX_TOPICS {
            waiting.insert(topic);
        }
        self.wakeup.notify_one();
    }

    /// Completes when topics are waiting.
    pub(super) async fn added(&self) {
        self.wakeup.notified().await;
    }

    /// Sends the waiting topics. A failed notification is not retried.
    pub(super) async fn send(&self, db: &Db, own: &str) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let topics: Vec<String> = waiting.iter().map(ToString::to_string).collect();
        for batch in topics.chunks(MAX_BATCH) {
            let text = format!("{own} {}", batch.join(","));
            if let Err(error) = db.notify(CHANNEL, &text).await {
                tracing::debug!(event = "live.notify_failed", %error, "cannot notify other processes");
            }
        }
    }
}
