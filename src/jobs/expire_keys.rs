//! Deactivates expired API keys, so that `is_active` shows it; the server refuses them from their
//! expiry on in any case. Also announces keys that expire soon, if webhooks are configured.

use super::schedule::Schedule;
use crate::audit::Origin;
use crate::features::api_keys::{service, webhook_events};
use crate::state::AppState;
use tokio_util::sync::CancellationToken;

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(app.config.cleanup_interval, stop);
    while schedule.due().await {
        deactivate(&app).await;
        announce(&app).await;
    }
}

async fn deactivate(app: &AppState) {
    match service::cleanup_expired(app, &Origin::SERVER).await {
        Ok(report) if report.deactivated_count > 0 => {
            let count = report.deactivated_count;
            tracing::info!(event = "keys.expired", count, "deactivated expired keys");
        }
        Ok(_) => {}
        Err(error) => {
            tracing::error!(
                event = "keys.expire_failed",
                %error,
                "cannot deactivate expired keys; will retry"
            );
        }
    }
}

async fn announce(app: &AppState) {
    match webhook_events::announce_expiring(app).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(event = "keys.expiring", count, "announced expiring keys"),
        Err(error) => {
            tracing::error!(
                event = "keys.announce_failed",
                %error,
                "cannot announce expiring keys; will retry"
            );
        }
    }
}
