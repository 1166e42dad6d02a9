//! Detects changes of API keys on SQLite: triggers increment `installation.version` with each
//! change.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Result, SqliteConnection};

/// A separate connection that polls SQLite for changes of the file.
#[derive(Debug)]
pub struct SqliteWatch {
    connection: SqliteConnection,
    data_version: i64,
    key_version: i64,
}

impl SqliteWatch {
    /// Opens the connection.
    pub(crate) async fn connect(options: &SqliteConnectOptions) -> Result<Self> {
        let connection = SqliteConnection::connect_with(options).await?;
        Ok(Self { connection, data_version: -1, key_version: -1 })
    }

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
