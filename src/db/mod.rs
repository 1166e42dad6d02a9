//! One database handle for SQLite and Postgres. Statements are written once, in the SQL that both
//! share (`$1`, `RETURNING`, `ON CONFLICT`), and run on the database that `DATABASE_URL` names.

mod backfill;
mod backup;
pub mod bulk;
mod check;
mod connect;
mod connection_pool;
mod copy;
mod group;
mod last_write;
pub mod lease;
mod lock;
mod migrate;
mod notify;
mod private_file;
mod query;
mod restore;
mod watch;

pub use backup::{BackupError, back_up, belongs_to};
pub use check::{Check, check, check_file};
pub use connect::{
    OpenError, open, open_any_file, open_existing, open_file, open_reporting_upgrade,
};
pub use connection_pool::ConnectionPool;
pub use copy::{CopyError, remove_leftover};
pub use group::{Writer, settled};
pub use last_write::LastWrite;
pub use lock::Lock;
pub use notify::Listener;
pub use query::{Bind, Executor, Query, Row, from_json, query};
pub use restore::{RestoreError, Restored};
pub use watch::{Heartbeat, Notification, PostgresWatch, SqliteWatch, Watch};

use connection_pool::{PooledConnection, run};
use group::GroupedTransaction;
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Result, Transaction};
use std::path::PathBuf;
use std::sync::Arc;

/// A database handle. Single reads run on `&Db`, several reads of one state on a [`Snapshot`], and
/// writes on a [`Tx`].
#[derive(Clone, Debug)]
pub enum Db {
    /// An SQLite file, with one write connection and several read connections.
    Sqlite {
        /// Read-only connections.
        read: ConnectionPool,
        /// The write connection.
        write: Writer,
        /// Path of the file.
        path: Arc<PathBuf>,
        /// Outcome of the last write.
        last_write: LastWrite,
    },
    /// A Postgres server.
    Postgres {
        /// Connections to the server.
        pool: PgPool,
        /// Outcome of the last write.
        last_write: LastWrite,
    },
}

/// A write transaction. Dropping it rolls back.
#[derive(Debug)]
pub struct Tx {
    open: Writing,
    last_write: LastWrite,
}

/// A write transaction of either database.
#[derive(Debug)]
enum Writing {
    Sqlite(GroupedTransaction),
    Postgres(Transaction<'static, Postgres>),
}

/// A read transaction of either database.
#[derive(Debug)]
enum Open {
    Sqlite(PooledConnection),
    Postgres(Transaction<'static, Postgres>),
}

/// A read transaction that sees one state of the database throughout.
#[derive(Debug)]
pub struct Snapshot(Open);

/// Connections of one connection pool.
#[derive(Debug)]
pub struct PoolState {
    /// `read`, `write` or `postgres`.
    pub name: &'static str,
    /// Open connections that are idle.
    pub idle: usize,
    /// Open connections in use.
    pub used: usize,
}

impl Db {
    /// Begins a write transaction. On SQLite, concurrent transactions wait here instead of failing
    /// later with `SQLITE_BUSY`. Those that wait share a commit group and its disk sync; each fails
    /// or is rolled back alone, unless the disk fails. On Postgres, the isolation level is READ
    /// COMMITTED.
    pub async fn begin(&self) -> Result<Tx> {
        self.begin_write(false).await
    }

    /// Begins a long write transaction outside any shared commit group, so that earlier
    /// transactions need not wait for its end.
    pub async fn begin_long(&self) -> Result<Tx> {
        self.begin_write(true).await
    }

    async fn begin_write(&self, is_exclusive: bool) -> Result<Tx> {
        let (open, last_write) = match self {
            Self::Sqlite { write, last_write, .. } => {
                (write.begin(is_exclusive).await.map(Writing::Sqlite), last_write)
            }
            Self::Postgres { pool, last_write } => {
                (begin_postgres(pool, "BEGIN").await.map(Writing::Postgres), last_write)
            }
        };
        Ok(Tx { open: last_write.note(open)?, last_write: last_write.clone() })
    }

    /// Begins a read transaction whose statements all see the same state.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        const POSTGRES: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        match self {
            Self::Sqlite { read, .. } => Snapshot::of(read).await,
            Self::Postgres { pool, .. } => {
                Ok(Snapshot(Open::Postgres(begin_postgres(pool, POSTGRES).await?)))
            }
        }
    }

    /// `sqlite` or `postgres`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres { .. } => "postgres",
        }
    }

    /// Version of the SQLite library or of the Postgres server.
    pub async fn version(&self) -> Result<String> {
        let sql = match self {
            Self::Sqlite { .. } => "SELECT sqlite_version()",
            Self::Postgres { .. } => "SHOW server_version",
        };
        let (version,): (String,) = query(self, sql).one().await?;
        Ok(version)
    }

    /// Size of the database in bytes, including its indexes.
    pub async fn size_bytes(&self) -> Result<i64> {
        const SQLITE: &str =
            "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        let sql = match self {
            Self::Sqlite { .. } => SQLITE,
            Self::Postgres { .. } => "SELECT pg_database_size(current_database())",
        };
        let (bytes,): (i64,) = query(self, sql).one().await?;
        Ok(bytes)
    }

    /// Size of SQLite's write-ahead log in bytes; `None` on Postgres.
    pub fn wal_bytes(&self) -> Option<u64> {
        let Self::Sqlite { path, .. } = self else { return None };
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        Some(std::fs::metadata(wal).map_or(0, |m| m.len()))
    }

    /// State of the connection pools.
    pub fn pools(&self) -> Vec<PoolState> {
        let state = |name, (open, idle): (usize, usize)| PoolState {
            name,
            idle,
            used: open.saturating_sub(idle),
        };
        match self {
            Self::Sqlite { read, write, .. } => {
                let (read, write) = (read.open_and_idle(), write.pool().open_and_idle());
                vec![state("read", read), state("write", write)]
            }
            Self::Postgres { pool, .. } => {
                vec![state("postgres", (pool.size() as usize, pool.num_idle()))]
            }
        }
    }

    /// Closes every connection. The last one to SQLite writes the log back into the file.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { read, write, .. } => {
                read.close().await;
                write.pool().close().await;
            }
            Self::Postgres { pool, .. } => pool.close().await,
        }
    }
}

/// Begins in a separate task, which the caller cannot cancel. sqlx 0.9.0 returns a connection to
/// the pool as if it had no transaction when its BEGIN was sent but not answered (sqlx issue 4393),
/// and the next user of the connection would run inside the old transaction.
async fn begin_postgres(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await }).await;
    begun.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

impl Snapshot {
    /// Begins on a connection of an SQLite pool.
    async fn of(pool: &ConnectionPool) -> Result<Self> {
        let mut pooled = pool.acquire().await?;
        run(pooled.connection(), "BEGIN").await?;
        Ok(Self(Open::Sqlite(pooled)))
    }

    /// Returns whether it runs on SQLite.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.0, Open::Sqlite(_))
    }
}

impl Tx {
    /// Returns whether it runs on SQLite.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.open, Writing::Sqlite(_))
    }

    /// Commits. On `Ok` the writes are durable.
    pub async fn commit(self) -> Result<()> {
        self.last_write.note_end(match self.open {
            Writing::Sqlite(tx) => tx.commit().await,
            Writing::Postgres(tx) => tx.commit().await,
        })
    }

    /// Rolls back. Returns when everything it saw of other transactions is durable; dropping does
    /// not wait for that.
    pub async fn rollback(self) -> Result<()> {
        match self.open {
            Writing::Sqlite(tx) => tx.rollback().await,
            Writing::Postgres(tx) => tx.rollback().await,
        }
    }
}
