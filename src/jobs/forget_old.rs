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
/// The database is asked once in so many periods.
const PERIODS_OF_DATABASE: u32 = 60;

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop);
    for period in (0..PERIODS_OF_DATABASE).cycle() {
        if !schedule.due().await {
            break;
        }
        app.throttle.sweep();
        if period == 0 {
            // Each for itself: one that fails must not keep the others.
            told("keys", api_keys::service::forget_old(&app).await);
            told("users", users::forget_old(&app).await);
            told("events", events::forget_old(&app).await);
            told("audit", api_keys::service::prune_trail(&app).await);
        }
    }
}

fn told(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(event = "forget_old.failed", what, %error, "will be tried again");
    }
}
