//! Tells other processes on the same Postgres what happened, and hears it from them.
//!
//! Not a trigger: a transaction that notifies commits alone among all that do, and none of those
//! who write should wait for that. What is not heard is found all the same, as who watches looks
//! from time to time.

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

/// What Postgres sends over.
const CHANNEL: &str = "octopus_live";
/// Most topics that wait to be told of.
const MAX_WAITING: usize = 10_000;
/// How long they gather before they are.
const GATHERING: Duration = Duration::from_millis(3);
/// Topics in one notification, which has at most 8000 bytes.
const BATCH: usize = 300;
/// How long to wait before a lost connection is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// Topics in which something happened that other processes were not told of yet.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: Mutex<BTreeSet<i64>>,
    news: Notify,
}

impl Outgoing {
    pub(super) fn add(&self, topic: i64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_WAITING {
            waiting.insert(topic);
        }
        self.news.notify_one();
    }

    /// Tells what waits. What could not be told is not tried again.
    async fn send(&self, db: &Db, own: &str) {
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let topics: Vec<String> = waiting.iter().map(ToString::to_string).collect();
        for batch in topics.chunks(BATCH) {
            let text = format!("{own} {}", batch.join(","));
            if let Err(error) = db.notify(CHANNEL, &text).await {
                tracing::debug!(event = "live.not_told", %error, "others find it by themselves");
            }
        }
    }
}

/// Carries news between `live` and other processes until `stop` is cancelled.
pub async fn run(live: &Live, db: &Db, stop: &CancellationToken) {
    let Some(outgoing) = &live.0.outgoing else { return stop.cancelled().await };
    // Its own news come back to a process, which has acted on them already.
    let own = Uuid::new_v4().to_string();
    let telling = async {
        loop {
            outgoing.news.notified().await;
            sleep(GATHERING).await;
            outgoing.send(db, &own).await;
        }
    };
    let hearing = async {
        loop {
            let error = Box::pin(hear(live, db, &own)).await;
            tracing::warn!(
                event = "live.deaf",
                error = &error as &dyn Error,
                "what happens in other processes is seen seconds later"
            );
            sleep(PAUSE).await;
        }
    };
    stop.run_until_cancelled(async {
        tokio::select! {
            never = telling => never,
            never = hearing => never,
        }
    })
    .await;
    outgoing.send(db, &own).await;
}

/// Why nothing can be heard any more.
async fn hear(live: &Live, db: &Db, own: &str) -> sqlx::Error {
    let mut listener = match db.listen(CHANNEL).await {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    // What was said before was not heard.
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
