//! Exchanges notifications with other processes on the same Postgres.
//!
//! A trigger is not used, because Postgres serializes the commits of transactions that notify, and
//! writes should not wait for that. A lost notification only delays an event: event streams also
//! poll the database.

use super::outgoing::CHANNEL;
use super::registry::Live;
use crate::db::Db;
use std::error::Error;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long topics are collected into one batch.
const BATCH_DELAY: Duration = Duration::from_millis(3);
/// Delay before reconnecting after a lost connection.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);

/// Relays notifications between `live` and other processes until `stop` is cancelled.
pub async fn run(live: &Live, db: &Db, stop: &CancellationToken) {
    let Some(outgoing) = live.outgoing() else { return stop.cancelled().await };
    // Postgres also delivers a process's own notifications, which it has handled already.
    let own = Uuid::new_v4().to_string();
    let sending = async {
        loop {
            outgoing.added().await;
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
