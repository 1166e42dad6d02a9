//! Detects changes that other processes make to API keys.
//!
//! Triggers signal each change: on Postgres by a notification with the id of the key on
//! [`CHANNEL`], on SQLite by incrementing `installation.version`.

use super::Db;
use sqlx::postgres::{PgListener, PgPool};
use sqlx::{Connection, Result, SqliteConnection};

/// Notification channel of Postgres.
const CHANNEL: &str = "octopus_keys";

/// A subscription to changes of API keys.
#[derive(Debug)]
pub enum Watch {
    /// Must be polled.
    Sqlite(SqliteWatch),
    /// Receives notifications.
    Postgres(PostgresWatch, Heartbeat),
}

/// A separate connection that polls SQLite for changes of the file.
#[derive(Debug)]
pub struct SqliteWatch {
    connection: SqliteConnection,
    data_version: i64,
    key_version: i64,
}

/// A separate connection that receives notifications.
#[derive(Debug)]
pub struct PostgresWatch(PgListener);

/// A notification received by a [`PostgresWatch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// The key with this id was changed.
    Changed(i64),
    /// The text of a [`Heartbeat`] from any process.
    Heartbeat(String),
    /// The connection was lost. Notifications sent before the next heartbeat may be missing.
    Lost,
}

/// Sends heartbeats, which show that the subscription still works.
#[derive(Debug)]
pub struct Heartbeat(PgPool);

impl Db {
    /// Subscribes to changes of API keys.
    pub async fn watch(&self) -> Result<Watch> {
        Ok(match self {
            Self::Sqlite { read, .. } => {
                let connection = SqliteConnection::connect_with(&read.options()).await?;
                Watch::Sqlite(SqliteWatch { connection, data_version: -1, key_version: -1 })
            }
            Self::Postgres { pool, .. } => {
                let mut listener = PgListener::connect_with(pool).await?;
                // Otherwise the listener would report a loss only after it has reconnected, which
                // may take as long as the pool is busy.
                listener.eager_reconnect(false);
                listener.listen(CHANNEL).await?;
                Watch::Postgres(PostgresWatch(listener), Heartbeat(pool.clone()))
            }
        })
    }
}

impl SqliteWatch {
    /// Returns whether any key was changed since the last call; `true` on the first call.
    pub async fn changed(&mut self) -> Result<bool> {
        const VERSION: &str = "SELECT version FROM installation WHERE id = 1";
        // Cheap, and constant until another connection writes.
        let data: i64 =
            sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut self.connection).await?;
        if data == self.data_version {
            return Ok(false);
        }
        let keys = sqlx::query_scalar(VERSION).fetch_one(&mut self.connection).await?;
        self.data_version = data;
        Ok(std::mem::replace(&mut self.key_version, keys) != keys)
    }

    /// Closes the connection.
    pub async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(
                event = "key_invalidation.close_failed",
                %error,
                "cannot close the connection"
            );
        }
    }
}

impl PostgresWatch {
    /// Waits for the next notification. After [`Notification::Lost`] it reconnects, and fails while
    /// it cannot.
    pub async fn next(&mut self) -> Result<Notification> {
        let Some(notification) = self.0.try_recv().await? else { return Ok(Notification::Lost) };
        let payload = notification.payload();
        Ok(match payload.parse() {
            Ok(id) => Notification::Changed(id),
            Err(_) => Notification::Heartbeat(payload.to_owned()),
        })
    }
}

impl Heartbeat {
    /// Sends `text`, which must not be a number.
    pub async fn send(&self, text: &str) -> Result<()> {
        let statement = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(text);
        statement.execute(&self.0).await.map(drop)
    }
}
