//! Invalidates cached API keys that other processes changed.

use crate::security::key_invalidation;
use crate::state::AppState;
use tokio_util::sync::CancellationToken;

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    key_invalidation::watch(&app.keys, &app.db, &stop).await;
}
