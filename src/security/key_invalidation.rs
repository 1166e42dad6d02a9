//! Invalidates the key cache when another process changes a key.

use super::key_cache::KeyCache;
use crate::db::{Db, Heartbeat, Notification, PostgresWatch, SqliteWatch, Watch};
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Interval between two checks of SQLite for changes.
const POLL_INTERVAL: Duration = Duration::from_millis(40);
/// How long the cache is used after a check: the maximum delay until a change takes effect.
const POLL_TRUST: Duration = Duration::from_millis(100);
/// Interval between two heartbeats on Postgres.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// How long the cache is used after a received heartbeat was sent.
const HEARTBEAT_TRUST: Duration = Duration::from_secs(2);
/// Delay before a lost connection is opened again.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);

/// Watches `db` for changes of API keys until `stop` is cancelled. The cache is disabled while the
/// watch fails.
pub async fn watch(keys: &KeyCache, db: &Db, stop: &CancellationToken) {
    while let Some(error) = watch_once(keys, db, stop).await {
        keys.disable();
        tracing::warn!(
            event = "key_invalidation.connection_lost",
            error = &error as &dyn std::error::Error,
            "cannot detect key changes by other processes; key cache disabled"
        );
        stop.run_until_cancelled(sleep(RECONNECT_DELAY)).await;
    }
}

/// Watches until an error, which it returns; `None` if `stop` was cancelled.
async fn watch_once(keys: &KeyCache, db: &Db, stop: &CancellationToken) -> Option<sqlx::Error> {
    match stop.run_until_cancelled(db.watch()).await? {
        Ok(Watch::Sqlite(mut watch)) => {
            let ended = stop.run_until_cancelled(poll(keys, &mut watch)).await;
            // Must be closed before the pools: the last connection runs the WAL checkpoint, which
            // this read-only connection cannot.
            watch.close().await;
            ended
        }
        Ok(Watch::Postgres(watch, heartbeat)) => {
            stop.run_until_cancelled(listen(keys, watch, &heartbeat)).await
        }
        Err(error) => Some(error),
    }
}

async fn poll(keys: &KeyCache, watch: &mut SqliteWatch) -> sqlx::Error {
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let checked_at = Instant::now();
        match watch.changed().await {
            Ok(changed) => {
                if changed {
                    keys.invalidate_all();
                }
                keys.enable_until(checked_at + POLL_TRUST);
            }
            Err(error) => return error,
        }
    }
}

/// A heartbeat that was sent, and when.
struct SentHeartbeat {
    name: String,
    at: Instant,
}

async fn listen(keys: &KeyCache, mut watch: PostgresWatch, heartbeat: &Heartbeat) -> sqlx::Error {
    let last = Mutex::new(None::<SentHeartbeat>);
    let send_heartbeats = async {
        let mut ticks = interval(HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let name = Uuid::new_v4().to_string();
            let sent = SentHeartbeat { name: name.clone(), at: Instant::now() };
            *last.lock() = Some(sent);
            if let Err(error) = heartbeat.send(&name).await {
                tracing::debug!(event = "key_invalidation.no_heartbeat", %error, "cannot send a heartbeat");
            }
        }
    };
    let receive = async {
        let mut missed = true;
        loop {
            match watch.next().await {
                Ok(Notification::Changed(id)) => keys.changed(id),
                Ok(Notification::Heartbeat(name)) => {
                    let last = last.lock();
                    let Some(sent) = last.as_ref().filter(|sent| sent.name == name) else {
                        continue;
                    };
                    if std::mem::take(&mut missed) {
                        keys.invalidate_all();
                    }
                    keys.enable_until(sent.at + HEARTBEAT_TRUST);
                }
                Ok(Notification::Lost) => {
                    keys.disable();
                    missed = true;
                    tracing::warn!(
                        event = "key_invalidation.connection_lost",
                        "listener connection lost; key cache disabled"
                    );
                }
                Err(error) => return error,
            }
        }
    };
    tokio::select! {
        error = receive => error,
        never = send_heartbeats => never,
    }
}
