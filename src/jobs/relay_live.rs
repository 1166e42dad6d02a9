//! Relays conversation events between processes.

use crate::live::relay;
use crate::state::AppState;
use tokio_util::sync::CancellationToken;

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    relay::run(&app.live, &app.db, &stop).await;
}
