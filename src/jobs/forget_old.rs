//! Removes data that is no longer needed: from memory, callers whose rate limit is full again; from
//! the database, rows past their retention.

use super::schedule::Schedule;
use crate::core::error::Result;
use crate::features::{self, api_keys};
use crate::state::AppState;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_mins(1);
const DATABASE_PERIOD: Duration = Duration::from_hours(1);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    // Concurrently: removing rows may take long.
    tokio::join!(sweep(&app, stop.clone()), remove_rows(&app, stop));
}

async fn sweep(app: &AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop);
    while schedule.due().await {
        app.throttle.sweep();
    }
}

async fn remove_rows(app: &AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(DATABASE_PERIOD, stop.clone());
    while schedule.due().await {
        // Separately: a failure of one must not stop the others.
        for feature in features::ALL {
            for rows in feature.old_rows {
                log_failure(rows.what, (rows.remove)(app).await);
            }
        }
        // The first run may take long, and a shutdown does not wait for it.
        let pruned = stop.run_until_cancelled(api_keys::service::prune_audit_log(app)).await;
        log_failure("audit", pruned.unwrap_or(Ok(())));
    }
}

fn log_failure(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(
            event = "cleanup.failed",
            what,
            %error,
            "cannot remove old rows; will retry"
        );
    }
}
