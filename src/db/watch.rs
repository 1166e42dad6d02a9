//! Detects changes that other processes make to API keys. Triggers signal each change.

use super::handle::Db;
use super::postgres::watch::{Heartbeat, PostgresWatch};
use super::sqlite::watch::SqliteWatch;
use sqlx::Result;

/// A subscription to changes of API keys.
#[derive(Debug)]
pub enum Watch {
    /// Must be polled.
    Sqlite(SqliteWatch),
    /// Receives notifications.
    Postgres(PostgresWatch, Heartbeat),
}

impl Db {
    /// Subscribes to changes of API keys.
    pub async fn watch(&self) -> Result<Watch> {
        Ok(match self {
            Self::Sqlite { read, .. } => {
                Watch::Sqlite(SqliteWatch::connect(&read.options()).await?)
            }
            Self::Postgres { pool, .. } => {
                Watch::Postgres(PostgresWatch::connect(pool).await?, Heartbeat::new(pool))
            }
        })
    }
}
