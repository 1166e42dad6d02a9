//! An SQLite connection pool without sqlx's ping on release.
//!
//! sqlx's pool pings each released connection in a new task: a second round trip to SQLite's thread
//! for each statement. This pool keeps connections whose last statement succeeded in front of
//! sqlx's pool, and checks only the others.

use crate::db::timeout::ACQUIRE_TIMEOUT;
use parking_lot::{Mutex, MutexGuard};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Result, Sqlite, SqliteConnection, SqlitePool};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// SQLite's error message for COMMIT and ROLLBACK outside a transaction.
pub(super) const NOT_BEGUN: &str = "no transaction is active";

/// A pool of SQLite connections. Clones share it.
#[derive(Clone, Debug)]
pub struct ConnectionPool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Opens connections, replaces lost ones, and closes them.
    pool: SqlitePool,
    /// One permit for each connection that the pool may open, so that no caller waits in sqlx's
    /// pool while a connection is idle here.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<PoolConnection<Sqlite>>>,
}

/// An acquired connection. Dropping it returns it to the pool.
#[derive(Debug)]
pub struct PooledConnection {
    /// `None` only after drop.
    connection: Option<PoolConnection<Sqlite>>,
    /// Whether no transaction is open and no statement is running.
    is_clean: bool,
    pool: ConnectionPool,
    /// Released after the connection.
    permit: Option<OwnedSemaphorePermit>,
}

impl ConnectionPool {
    /// Creates a pool on top of sqlx's `pool`.
    pub fn new(pool: SqlitePool) -> Self {
        let size = pool.options().get_max_connections();
        let permits = Arc::new(Semaphore::new(size.try_into().unwrap_or(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Inner { pool, permits, idle: Mutex::default() }))
    }

    /// Waits for a connection, first come, first served. Fails with the errors of sqlx's pool, such
    /// as `PoolTimedOut`.
    pub async fn acquire(&self) -> Result<PooledConnection> {
        let acquired = timeout(ACQUIRE_TIMEOUT, self.acquire_without_timeout()).await;
        acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn acquire_without_timeout(&self) -> Result<PooledConnection> {
        let permit = self.0.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.0.pool.acquire().await?,
        };
        let (connection, permit) = (Some(connection), Some(permit));
        Ok(PooledConnection { connection, is_clean: true, pool: self.clone(), permit })
    }

    /// Opens all connections of the pool and reads with each, so that SQLite opens the files.
    pub(super) async fn open_all(&self) -> Result<()> {
        let mut opened = vec![];
        for _ in 0..self.0.pool.options().get_max_connections() {
            let mut pooled = self.acquire().await?;
            run(pooled.connection(), "SELECT 1 FROM sqlite_schema LIMIT 1").await?;
            pooled.mark_clean();
            opened.push(pooled);
        }
        Ok(())
    }

    /// Options with which connections are opened.
    pub fn options(&self) -> Arc<SqliteConnectOptions> {
        self.0.pool.connect_options()
    }

    /// Number of open connections, and how many of them are idle.
    pub fn open_and_idle(&self) -> (usize, usize) {
        let idle = self.idle().len() + self.0.pool.num_idle();
        (self.0.pool.size() as usize, idle)
    }

    /// Rejects further calls of [`Self::acquire`], and closes each connection when it is returned.
    pub async fn close(&self) {
        self.0.permits.close();
        self.idle().clear();
        self.0.pool.close().await;
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PoolConnection<Sqlite>>> {
        self.0.idle.lock()
    }

    fn release(&self, connection: PoolConnection<Sqlite>) {
        let mut idle = self.idle();
        if !self.0.permits.is_closed() {
            idle.push(connection);
        }
    }
}

impl PooledConnection {
    /// The connection. Call [`Self::mark_clean`] when all statements succeeded and no transaction is
    /// open.
    ///
    /// # Panics
    /// Never: the connection is present until drop.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        self.is_clean = false;
        self.connection.as_mut().expect("present until drop")
    }

    /// Marks the connection as reusable without a rollback.
    pub fn mark_clean(&mut self) {
        self.is_clean = true;
    }
}

/// Detaches the idle connections: sqlx's pool would return them in new tasks, and the runtime may
/// have stopped.
impl Drop for Inner {
    fn drop(&mut self) {
        self.idle.get_mut().drain(..).for_each(|connection| drop(connection.detach()));
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.is_clean {
            return self.pool.release(connection);
        }
        let (pool, permit) = (self.pool.clone(), self.permit.take());
        tokio::spawn(async move {
            match run(&mut connection, "ROLLBACK").await {
                Err(error) if !message_contains(&error, NOT_BEGUN) => {
                    // Its next user would run inside the open transaction.
                    connection.close_on_drop();
                    drop(connection);
                }
                _ => pool.release(connection),
            }
            drop(permit);
        });
    }
}

/// Runs a statement through the cache of prepared statements, which raw SQL text does not use.
pub(crate) async fn run(connection: &mut SqliteConnection, sql: &'static str) -> Result<()> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

/// Returns whether `error` is a database error whose message contains `text`.
pub(super) fn message_contains(error: &sqlx::Error, text: &str) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains(text))
}
