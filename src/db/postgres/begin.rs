//! Begins a Postgres transaction.

use sqlx::{Result, Transaction};
use sqlx_postgres::{PgPool, Postgres};

/// Begins in a separate task, which the caller cannot cancel. sqlx 0.9.0 returns a connection to
/// the pool as if it had no transaction when its BEGIN was sent but not answered (sqlx issue 4393),
/// and the next user of the connection would run inside the old transaction.
pub(crate) async fn begin(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await }).await;
    begun.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}
