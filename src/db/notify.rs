//! Notifications between processes that use the same Postgres database.

use super::Db;
use sqlx::postgres::PgListener;
use sqlx::{Error, Result};

/// A subscription to a channel, on a separate connection.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Db {
    /// Subscribes to `channel`. Fails on SQLite, which has no channels.
    pub async fn listen(&self, channel: &'static str) -> Result<Listener> {
        let Self::Postgres { pool, .. } = self else { return Err(without_channels()) };
        let mut listener = PgListener::connect_with(pool).await?;
        // Otherwise notifications sent while it reconnects would be missed without an error.
        listener.eager_reconnect(false);
        listener.listen(channel).await?;
        Ok(Listener(listener))
    }

    /// Sends `text`, of less than 8000 bytes, to all subscribers of `channel`. Fails on SQLite.
    pub async fn notify(&self, channel: &'static str, text: &str) -> Result<()> {
        let Self::Postgres { pool, .. } = self else { return Err(without_channels()) };
        let statement = sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(text);
        statement.execute(pool).await.map(drop)
    }
}

impl Listener {
    /// Waits for the next text. Fails when the connection is lost.
    pub async fn next(&mut self) -> Result<String> {
        let notification = self.0.try_recv().await?;
        notification.map(|received| received.payload().to_owned()).ok_or(Error::WorkerCrashed)
    }
}

fn without_channels() -> Error {
    Error::Configuration("SQLite has no notification channels".into())
}
