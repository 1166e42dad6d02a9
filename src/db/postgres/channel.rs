//! Notification channels: subscribes on a separate connection, and sends through the pool.

use sqlx::Result;
use sqlx_postgres::{PgListener, PgPool};

/// Subscribes to `channel`.
pub(super) async fn subscribe(pool: &PgPool, channel: &'static str) -> Result<PgListener> {
    let mut listener = PgListener::connect_with(pool).await?;
    // Otherwise the listener would report a loss only after it has reconnected, which may take as
    // long as the pool is busy. Notifications sent meanwhile would be missed.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}

/// Sends `text`, of less than 8000 bytes, to all subscribers of `channel`.
pub(super) async fn send(pool: &PgPool, channel: &'static str, text: &str) -> Result<()> {
    let statement = sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(text);
    statement.execute(pool).await.map(drop)
}
