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
    if let Err(error) = log_end(app, logged).await {
        tracing::error!(event = "audit.checkpoint_failed", %error, "will be tried again");
    }
}

async fn log_end(app: &AppState, logged: &mut Option<Anchor>) -> sqlx::Result<()> {
    let anchor = app.audit.anchor(&app.db).await?;
    if logged.as_ref() == Some(&anchor) {
        return Ok(());
    }
    if let Some(known) = logged
        && !app.audit.has(&app.db, known).await?
    {
        tracing::error!(event = "audit.cut_off", %known, %anchor, "the audit chain lost its end");
    }
    tracing::info!(event = "audit.checkpoint", %anchor, "the audit chain ends here");
    *logged = Some(anchor);
    Ok(())
}
