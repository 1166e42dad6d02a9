//! Gives SQLite's index for searches the messages that it lacks. Until then searches read them
//! themselves.

use super::Schedule;
use crate::features::conversations::search;
use crate::state::AppState;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(1);
/// At most how often a failure is logged.
const LOG_INTERVAL: Duration = Duration::from_hours(1);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop.clone());
    let mut logged_at: Option<Instant> = None;
    while schedule.due().await {
        match search::catch_up(&app.db, &stop).await {
            Ok(()) => logged_at = None,
            // A full disk fails every second; one line an hour is enough.
            Err(error) if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) => {
                tracing::error!(event = "search.index_failed", %error, "will be tried again; searches read what it lacks");
                logged_at = Some(Instant::now());
            }
            Err(_) => {}
        }
    }
}
