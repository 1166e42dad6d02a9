//! Notices what other processes do to keys.

use crate::security::key_watch;
use crate::state::AppState;
use tokio_util::sync::CancellationToken;

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    key_watch::watch(&app.keys, &app.db, &stop).await;
}
