//! Keeps the cache of keys true to what other processes change.

use super::keys::Keys;
use crate::db::{Beat, Db, Heard, PostgresWatch, SqliteWatch, Watch};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often SQLite is asked.
const POLL: Duration = Duration::from_millis(40);
/// How long the answer is good: no change is overlooked for longer.
const POLL_TRUST: Duration = Duration::from_millis(100);
/// How often Postgres is asked to send a beat.
const BEAT: Duration = Duration::from_millis(500);
/// How long a beat that was heard shows that the listener is not deaf.
const BEAT_TRUST: Duration = Duration::from_secs(2);
/// How long to wait before a lost connection is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// Watches `db` for changes of `keys` until `stop` is cancelled; while it cannot, the cache is not
/// trusted.
pub async fn watch(keys: &Keys, db: &Db, stop: &CancellationToken) {
    while let Some(error) = watch_once(keys, db, stop).await {
        keys.distrust();
        tracing::warn!(
            event = "key_watch.lost",
            error = &error as &dyn std::error::Error,
            "changes by other processes are not told of: every key is looked up"
        );
        stop.run_until_cancelled(sleep(PAUSE)).await;
    }
}

/// Why it cannot watch any more; `None` when it was told to stop.
async fn watch_once(keys: &Keys, db: &Db, stop: &CancellationToken) -> Option<sqlx::Error> {
    match stop.run_until_cancelled(db.watch()).await? {
        Ok(Watch::Sqlite(mut watch)) => {
            let ended = stop.run_until_cancelled(poll(keys, &mut watch)).await;
            // Closed before the pools are: the last one writes the log back, and this one cannot.
            watch.close().await;
            ended
        }
        Ok(Watch::Postgres(watch, beat)) => {
            stop.run_until_cancelled(listen(keys, watch, &beat)).await
        }
        Err(error) => Some(error),
    }
}

async fn poll(keys: &Keys, watch: &mut SqliteWatch) -> sqlx::Error {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        match watch.changed().await {
            Ok(changed) => {
                if changed {
                    keys.all_changed();
                }
                keys.trust_until(asked + POLL_TRUST);
            }
            Err(error) => return error,
        }
    }
}

/// A beat that was sent, and when.
struct Sent {
    name: String,
    at: Instant,
}

async fn listen(keys: &Keys, mut watch: PostgresWatch, beat: &Beat) -> sqlx::Error {
    let last = std::sync::Mutex::new(None::<Sent>);
    let beating = async {
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let name = Uuid::new_v4().to_string();
            let sent = Sent { name: name.clone(), at: Instant::now() };
            *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(sent);
            if let Err(error) = beat.send(&name).await {
                tracing::debug!(event = "key_watch.no_beat", %error, "will be tried again");
            }
        }
    };
    let hearing = async {
        let mut missed = true;
        loop {
            match watch.next().await {
                Ok(Heard::Changed(id)) => keys.changed(id),
                Ok(Heard::Beat(name)) => {
                    let last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let Some(sent) = last.as_ref().filter(|sent| sent.name == name) else {
                        continue;
                    };
                    if std::mem::take(&mut missed) {
                        keys.all_changed();
                    }
                    keys.trust_until(sent.at + BEAT_TRUST);
                }
                Ok(Heard::Lost) => {
                    keys.distrust();
                    missed = true;
                    tracing::warn!(event = "key_watch.lost", "the listener's connection was lost");
                }
                Err(error) => return error,
            }
        }
    };
    tokio::select! {
        error = hearing => error,
        never = beating => never,
    }
}
