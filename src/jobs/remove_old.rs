//! Removes conversations without new messages for longer than `RETENTION_DAYS`.

use super::schedule::Schedule;
use crate::features::conversations::retention::{Removed, Retention};
use crate::state::AppState;
use tokio_util::sync::CancellationToken;

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(app.config.cleanup_interval, stop.clone());
    let mut retention = Retention::new(&app);
    while schedule.due().await {
        let outcome = retention.remove_old(&stop).await;
        let Removed { conversations, messages } = retention.take_removed();
        if messages > 0 || conversations > 0 {
            tracing::info!(
                event = "conversations.removed",
                conversations,
                messages,
                "removed old conversations"
            );
        }
        if let Err(error) = outcome {
            tracing::error!(
                event = "conversations.remove_failed",
                %error,
                "cannot remove old conversations; will retry"
            );
        }
    }
    if let Err(error) = retention.release().await {
        tracing::warn!(
            event = "conversations.lease_not_released",
            %error,
            "cannot release the lease; other servers wait for a minute"
        );
    }
}
