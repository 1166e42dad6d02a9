//! Adds missing messages to SQLite's full-text index. Until then, searches read those messages
//! directly.

use super::schedule::Schedule;
use crate::features::conversations::search;
use crate::state::AppState;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(1);
/// Minimum time between two logged failures.
const LOG_INTERVAL: Duration = Duration::from_hours(1);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop.clone());
    let mut logged_at: Option<Instant> = None;
    while schedule.due().await {
        match search::catch_up(&app.db, &stop).await {
            Ok(()) => logged_at = None,
            // With a full disk this fails every second; log once an hour.
            Err(error) if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) => {
                tracing::error!(
                    event = "search.index_failed",
                    %error,
                    "cannot index messages; will retry, and searches read them directly"
                );
                logged_at = Some(Instant::now());
            }
            Err(_) => {}
        }
    }
}
