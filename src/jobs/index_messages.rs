//! Gives SQLite's index for searches the messages that it lacks. Until then searches read them
//! themselves.

use super::Schedule;
use crate::features::conversations::search;
use crate::state::AppState;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(1);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop.clone());
    let mut has_failed = false;
    while schedule.due().await {
        let outcome = search::catch_up(&app.db, &stop).await;
        // Once a second would be too much to say of a disk that is full.
        if let Err(error) = &outcome
            && !has_failed
        {
            tracing::error!(event = "search.index_failed", %error, "will be tried again; searches read what it lacks");
        }
        has_failed = outcome.is_err();
    }
}
