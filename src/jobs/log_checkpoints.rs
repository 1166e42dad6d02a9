//! Logs the end of the audit chain, so that a chain that is cut off later shows.

use super::Schedule;
use crate::audit::Anchor;
use crate::state::AppState;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_mins(1);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop);
    let mut logged = None;
    while schedule.due().await {
        log(&app, &mut logged).await;
    }
    log(&app, &mut logged).await;
}

async fn log(app: &AppState, logged: &mut Option<Anchor>) {
    match app.audit.anchor(&app.db).await {
        Ok(anchor) if logged.as_ref() != Some(&anchor) => {
            tracing::info!(event = "audit.checkpoint", %anchor, "the audit chain ends here");
            *logged = Some(anchor);
        }
        Ok(_) => {}
        Err(error) => {
            tracing::error!(event = "audit.checkpoint_failed", %error, "will be tried again");
        }
    }
}
