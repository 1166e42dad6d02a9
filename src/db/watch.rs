//! Notices changes of API keys that other processes make.
//!
//! The schema tells: on Postgres a trigger sends the changed key's id over [`CHANNEL`], on SQLite
//! one counts up `installation.version`.

use super::Db;
use sqlx::postgres::{PgListener, PgPool};
use sqlx::{Connection, Result, SqliteConnection};

/// What Postgres sends over.
const CHANNEL: &str = "octopus_keys";

/// Somebody who listens.
#[derive(Debug)]
pub enum Watch {
    /// To be asked again and again.
    Sqlite(SqliteWatch),
    /// Tells by itself.
    Postgres(PostgresWatch, Beat),
}

/// A connection of its own, which asks SQLite whether the file has changed.
#[derive(Debug)]
pub struct SqliteWatch {
    connection: SqliteConnection,
    data_version: i64,
    key_version: i64,
}

/// A connection of its own, which hears what others send.
#[derive(Debug)]
pub struct PostgresWatch(PgListener);

/// What a [`PostgresWatch`] hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This key was changed.
    Changed(i64),
    /// Somebody's [`Beat`].
    Beat(String),
    /// The connection was lost; what was sent until the next beat was not heard.
    Lost,
}

/// Sends what only shows that the listener is not deaf.
#[derive(Debug)]
pub struct Beat(PgPool);

impl Db {
    /// Starts to listen.
    pub async fn watch(&self) -> Result<Watch> {
        Ok(match self {
            Self::Sqlite { read, .. } => {
                let connection = SqliteConnection::connect_with(&read.options()).await?;
                Watch::Sqlite(SqliteWatch { connection, data_version: -1, key_version: -1 })
            }
            Self::Postgres { pool, .. } => {
                let mut listener = PgListener::connect_with(pool).await?;
                // Otherwise it would tell of a loss only once it is connected again, which may take
                // as long as the pool is busy.
                listener.eager_reconnect(false);
                listener.listen(CHANNEL).await?;
                Watch::Postgres(PostgresWatch(listener), Beat(pool.clone()))
            }
        })
    }
}

impl SqliteWatch {
    /// Whether any key was changed since the last call; the first time, yes.
    pub async fn changed(&mut self) -> Result<bool> {
        const VERSION: &str = "SELECT version FROM installation WHERE id = 1";
        // Cheap, and the same as long as nobody else wrote anything.
        let data: i64 =
            sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut self.connection).await?;
        if data == self.data_version {
            return Ok(false);
        }
        let keys = sqlx::query_scalar(VERSION).fetch_one(&mut self.connection).await?;
        self.data_version = data;
        Ok(std::mem::replace(&mut self.key_version, keys) != keys)
    }

    /// Closes its connection.
    pub async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(event = "key_watch.not_closed", %error, "it ends with the process");
        }
    }
}

impl PostgresWatch {
    /// What comes next. Called after [`Heard::Lost`], it connects again; fails while it cannot.
    pub async fn next(&mut self) -> Result<Heard> {
        let Some(notification) = self.0.try_recv().await? else { return Ok(Heard::Lost) };
        let payload = notification.payload();
        Ok(match payload.parse() {
            Ok(id) => Heard::Changed(id),
            Err(_) => Heard::Beat(payload.to_owned()),
        })
    }
}

impl Beat {
    /// Sends `text`, which is no number.
    pub async fn send(&self, text: &str) -> Result<()> {
        let statement = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(text);
        statement.execute(&self.0).await.map(drop)
    }
}
