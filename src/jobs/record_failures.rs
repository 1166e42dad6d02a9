//! Writes the counts of refused credentials, sign-ins and registrations to the audit log, once a
//! minute.

use super::schedule::Schedule;
use crate::features::api_keys::service;
use crate::state::AppState;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_mins(1);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    // Not at the start: a restart during many refusals would split its first minute in two.
    let mut schedule = Schedule::after_every(PERIOD, stop);
    while schedule.due().await {
        record(&app).await;
    }
    record(&app).await;
}

async fn record(app: &AppState) {
    if let Err(error) = service::record_failures(app).await {
        tracing::error!(
            event = "audit.flush_failed",
            %error,
            "cannot record refused credentials; will retry"
        );
    }
}
