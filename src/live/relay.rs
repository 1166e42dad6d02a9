//! Exchanges notifications with other processes on the same Postgres.
//!
//! A trigger is not used, because Postgres serializes the commits of transactions that notify, and
//! writes should not wait for that. A lost notification only delays an event: event streams also
//! poll the database.

use super::Live;
use crate::db::Db;
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The Postgres notification channel.
const CHANNEL: &str = "octopus_live";
/// Maximum number of topics waiting to be sent.
const MAX_TOPICS: usize = 10_000;
/// How long topics are collected into one batch.
const BATCH_DELAY: Duration = Duration::from_millis(3);
/// Maximum number of topics in one notification, which Postgres limits to 8000 bytes.
const MAX_BATCH: usize = 300;
/// Delay before reconnecting after a lost connection.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);

/// Changed topics that other processes are not yet notified of.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: Mutex<BTreeSet<i64>>,
    wakeup: Notify,
}

impl Outgoing {
    pub(super) fn add(&self, topic: i64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_TOPICS {
            waiting.insert(topic);
        }
        self.wakeup.notify_one();
    }

    /// Sends the waiting topics. A failed notification is not retried.
    async fn send(&self, db: &Db, own: &str) {
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let topics: Vec<String> = waiting.iter().map(ToString::to_string).collect();
        for batch in topics.chunks(MAX_BATCH) {
            let text = format!("{own} {}", batch.join(","));
            if let Err(error) = db.notify(CHANNEL, &text).await {
                tracing::debug!(event = "live.notify_failed", %error, "cannot notify other processes");
            }
        }
    }
}

/// Relays notifications between `live` and other processes until `stop` is cancelled.
pub async fn run(live: &Live, db: &Db, stop: &CancellationToken) {
    let Some(outgoing) = &live.0.outgoing else { return stop.cancelled().await };
    // Postgres also delivers a process's own notifications, which it has handled already.
    let own = Uuid::new_v4().to_string();
    let sending = async {
        loop {
            outgoing.wakeup.notified().await;
            sleep(BATCH_DELAY).await;
            outgoing.send(db, &own).await;
        }
    };
    let receiving = async {
        loop {
            let error = Box::pin(receive(live, db, &own)).await;
            tracing::warn!(
                event = "live.listen_failed",
                error = &error as &dyn Error,
                "not connected to other processes; their changes are seen seconds later"
            );
            sleep(RECONNECT_DELAY).await;
        }
    };
    stop.run_until_cancelled(async {
        tokio::select! {
            never = sending => never,
            never = receiving => never,
        }
    })
    .await;
    outgoing.send(db, &own).await;
}

/// Receives notifications from other processes until the connection fails. Returns its error.
async fn receive(live: &Live, db: &Db, own: &str) -> sqlx::Error {
    let mut listener = match db.listen(CHANNEL).await {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    // Notifications sent before the connection was made are lost.
    live.wake_all();
    loop {
        let text = match listener.next().await {
            Ok(text) => text,
            Err(error) => return error,
        };
        match text.split_once(' ') {
            Some((sender, topics)) if sender != own => {
                topics.split(',').filter_map(|topic| topic.parse().ok()).for_each(|t| live.wake(t));
            }
            _ => {}
        }
    }
}
