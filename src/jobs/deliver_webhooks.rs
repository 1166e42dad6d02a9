//! Delivers webhook events. A new event waits for the next check, at most one second.

use super::schedule::Schedule;
use crate::state::AppState;
use crate::webhooks::{DeliverError, Deliverer};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(1);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    if !app.webhooks.is_configured() {
        // A job that returns early counts as crashed.
        return stop.cancelled().await;
    }
    let mut schedule = Schedule::every(PERIOD, stop.clone());
    let mut deliverer = None;
    while schedule.due().await {
        if let Err(error) = deliver(&app, &mut deliverer, &stop).await {
            tracing::error!(
                event = "webhook.outbox_failed",
                %error,
                "cannot read or write waiting webhook events; will retry"
            );
        }
    }
    if let Some(mut deliverer) = deliverer
        && let Err(error) = deliverer.release().await
    {
        tracing::warn!(
            event = "webhook.lease_not_released",
            %error,
            "cannot release the lease; other servers wait for a minute"
        );
    }
}

async fn deliver(
    app: &AppState,
    deliverer: &mut Option<Deliverer>,
    stop: &CancellationToken,
) -> Result<(), DeliverError> {
    if deliverer.is_none() {
        *deliverer = Deliverer::new(&app.webhooks, &app.db, &app.clock)?;
    }
    match deliverer {
        Some(deliverer) => deliverer.deliver_due(stop).await,
        None => Ok(()),
    }
}
