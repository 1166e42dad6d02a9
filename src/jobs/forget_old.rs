//! Forgets what is no longer needed: callers whose rate limits are whole again, and, in the
//! database, what is kept for a time only.

use super::Schedule;
use crate::core::error::Result;
use crate::features::conversations::events;
use crate::features::{api_keys, users};
use crate::state::AppState;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_mins(1);
const PERIOD_OF_DATABASE: Duration = Duration::from_hours(1);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    // Not one after the other: the database may have much to forget.
    tokio::join!(sweep(&app, stop.clone()), forget(&app, stop));
}

async fn sweep(app: &AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop);
    while schedule.due().await {
        app.throttle.sweep();
    }
}

async fn forget(app: &AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD_OF_DATABASE, stop.clone());
    while schedule.due().await {
        // Each for itself: one that fails must not keep the others.
        told("keys", api_keys::service::forget_old(app).await);
        told("users", users::forget_old(app).await);
        told("events", events::forget_old(app).await);
        // The first time may take long, and the end does not wait for it.
        let pruned = stop.run_until_cancelled(api_keys::service::prune_trail(app)).await;
        told("audit", pruned.unwrap_or(Ok(())));
    }
}

fn told(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(event = "forget_old.failed", what, %error, "will be tried again");
    }
}
