//! Switches off keys whose end has come. They are refused before, too; this makes it show.

use super::Schedule;
use crate::audit::Origin;
use crate::features::api_keys::service;
use crate::state::AppState;
use tokio_util::sync::CancellationToken;

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(app.config.cleanup_interval, stop);
    while schedule.due().await {
        match service::cleanup_expired(&app, &Origin::SERVER).await {
            Ok(report) if report.deactivated_count > 0 => {
                let count = report.deactivated_count;
                tracing::info!(event = "keys.expired", count, "switched off expired keys");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(event = "keys.expire_failed", %error, "will be tried again");
            }
        }
    }
}
