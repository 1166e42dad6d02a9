//! Deletes what has expired.

use super::names;
use super::password_reset::repository as password_resets;
use super::sessions::repository as sessions;
use crate::core::error::Result;
use crate::state::AppState;
use chrono::TimeDelta;

/// Delay before an idle session is deleted, because another process may not have written its last
/// use yet.
const DELETION_DELAY: TimeDelta = TimeDelta::hours(1);

/// Deletes expired sessions, password reset tokens and username reservations.
pub async fn forget_old(app: &AppState) -> Result<()> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    sessions::forget(&mut tx, now, now - app.config.sessions.idle - DELETION_DELAY).await?;
    password_resets::forget_expired(&mut tx, now).await?;
    names::forget_old(&mut tx, now).await?;
    Ok(tx.commit().await?)
}
