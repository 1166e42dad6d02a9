//! Commits changes of conversations; and the error for a missing one.

use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::state::AppState;

/// The error if no conversation with this id is visible.
pub(crate) const NOT_FOUND: Error = Error::NotFound("Conversation");

/// Commits a change of conversation `id` and notifies its subscribers.
pub(super) async fn commit(app: &AppState, tx: Tx, id: i64) -> Result<()> {
    let committed = tx.commit().await;
    // Notify even after an error: the commit may have succeeded although its response was lost.
    app.live.notify(id);
    Ok(committed?)
}
