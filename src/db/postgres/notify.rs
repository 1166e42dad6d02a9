//! Notifications between processes that use the same Postgres database.

use super::channel;
use crate::db::handle::Db;
use sqlx::{Error, Result};
use sqlx_postgres::PgListener;

/// A subscription to a channel, on a separate connection.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Db {
    /// Subscribes to `channel`. Fails on SQLite, which has no channels.
    pub async fn listen(&self, channel: &'static str) -> Result<Listener> {
        let Self::Postgres { pool, .. } = self else { return Err(without_channels()) };
        channel::subscribe(pool, channel).await.map(Listener)
    }

    /// Sends `text`, of less than 8000 bytes, to all subscribers of `channel`. Fails on SQLite.
    pub async fn notify(&self, channel: &'static str, text: &str) -> Result<()> {
        let Self::Postgres { pool, .. } = self else { return Err(without_channels()) };
        channel::send(pool, channel, text).await
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
