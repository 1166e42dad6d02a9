//! Forgets callers whose rate limits are whole again.

use super::Schedule;
use crate::state::AppState;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_mins(1);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop);
    while schedule.due().await {
        app.throttle.sweep();
    }
}
