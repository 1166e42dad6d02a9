//! Checks that a full-text index of SQLite matches its texts.

use super::report::Check;
use super::tables::SearchIndex;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, Result};

/// Compares `index` with its texts on a separate connection. SQLite reports a difference as a
/// malformed database.
pub(super) async fn check(options: &SqliteConnectOptions, index: &SearchIndex) -> Result<Check> {
    let mut connection = options.clone().disable_statement_logging().connect().await?;
    let mut reading = connection.begin().await?; // one state of both
    let compared = match reading.execute(index.copy).await {
        Ok(_) => reading.execute(index.compare).await,
        failed => failed,
    };
    reading.rollback().await?;
    connection.close().await?;
    Check::of(index.name, compared.map(|_| vec![]), |()| String::new())
}
