//! Writes the usage of API keys (count and last use) and the last use of sessions to the database.
//! A failure is retried and fails no request.

use super::schedule::Schedule;
use crate::state::AppState;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(5);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop);
    while schedule.due().await {
        flush(&app).await;
    }
    flush(&app).await;
}

async fn flush(app: &AppState) {
    if let Err(error) = app.usage.flush(&app.db).await {
        tracing::error!(
            event = "usage.flush_failed",
            %error,
            "cannot write the usage of keys; will retry"
        );
    }
    if let Err(error) = app.session_uses.flush(&app.db).await {
        tracing::error!(
            event = "session_uses.flush_failed",
            %error,
            "cannot write the last use of sessions; will retry"
        );
    }
}
