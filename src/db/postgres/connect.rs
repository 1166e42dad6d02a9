//! Opens a Postgres database.

use super::migrate;
use crate::db::error::OpenError;
use crate::db::handle::Db;
use crate::db::last_write::LastWrite;
use crate::db::migrate::Changes;
use crate::db::timeout::ACQUIRE_TIMEOUT;
use sqlx::{ConnectOptions, Connection};
use sqlx_postgres::{PgConnectOptions, PgPoolOptions};
use std::time::Duration;

/// Maximum number of connections.
const MAX_CONNECTIONS: u32 = 16;
/// A connection that was idle for longer is pinged before it is used.
const PING_AFTER_IDLE: Duration = Duration::from_millis(100);

/// Opens the database at `url`. Returns whether its schema was older.
pub(crate) async fn open(url: &str, changes: Changes) -> Result<(Db, bool), OpenError> {
    let options: PgConnectOptions = url.parse()?;
    // Not through the pool, which retries until its timeout and does not report the reason.
    let connection = options.connect().await.map_err(|error| match error {
        sqlx::Error::Io(cause) => {
            let address = format!("{}:{}", options.get_host(), options.get_port());
            OpenError::Unreachable { address, cause }
        }
        other => other.into(),
    })?;
    connection.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, was| {
            // A connection that was used a moment ago is assumed to work.
            Box::pin(async move {
                Ok(was.idle_for <= PING_AFTER_IDLE || connection.ping().await.is_ok())
            })
        })
        .connect_with(options.application_name("octopus").statement_cache_capacity(512))
        .await?;
    let was_older = migrate::migrate(&pool, changes).await?;
    Ok((Db::Postgres { pool, last_write: LastWrite::default() }, was_older))
}
