//! Checks that the files of the SQLite database are those that were opened.

use super::schedule::Schedule;
use crate::state::AppState;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_millis(500);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop);
    while schedule.due().await {
        // The check logs what it finds.
        let _ = app.db.check_files();
    }
}
