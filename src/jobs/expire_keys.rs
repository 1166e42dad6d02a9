//! Switches off keys whose end has come, which are refused before, too: this makes it show. And
//! tells of keys whose end comes soon, if anybody wants to know.

use super::Schedule;
use crate::audit::Origin;
use crate::features::api_keys::{notices, service};
use crate::state::AppState;
use tokio_util::sync::CancellationToken;

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(app.config.cleanup_interval, stop);
    while schedule.due().await {
        switch_off(&app).await;
        announce(&app).await;
    }
}

async fn switch_off(app: &AppState) {
    match service::cleanup_expired(app, &Origin::SERVER).await {
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

async fn announce(app: &AppState) {
    match notices::announce_expiring(app).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(event = "keys.expiring", count, "announced keys that end soon"),
        Err(error) => {
            tracing::error!(event = "keys.announce_failed", %error, "will be tried again");
        }
    }
}
