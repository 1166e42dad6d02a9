//! What processes on the same Postgres tell one another.

use super::Db;
use sqlx::postgres::PgListener;
use sqlx::{Error, Result};

/// Somebody who listens, with a connection of its own.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Db {
    /// Listens to `channel`. Fails on SQLite, which has none.
    pub async fn listen(&self, channel: &'static str) -> Result<Listener> {
        let Self::Postgres { pool, .. } = self else { return Err(without_channels()) };
        let mut listener = PgListener::connect_with(pool).await?;
        // Otherwise what was sent while it connected again would be missed without a word.
        listener.eager_reconnect(false);
        listener.listen(channel).await?;
        Ok(Listener(listener))
    }

    /// Sends `text`, of less than 8000 bytes, to all who listen to `channel`. Fails on SQLite.
    pub async fn notify(&self, channel: &'static str, text: &str) -> Result<()> {
        let Self::Postgres { pool, .. } = self else { return Err(without_channels()) };
        let statement = sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(text);
        statement.execute(pool).await.map(drop)
    }
}

impl Listener {
    /// What is sent next. Fails when the connection is lost.
    pub async fn next(&mut self) -> Result<String> {
        let notification = self.0.try_recv().await?;
        notification.map(|heard| heard.payload().to_owned()).ok_or(Error::WorkerCrashed)
    }
}

fn without_channels() -> Error {
    Error::Configuration("SQLite has no channels".into())
}
