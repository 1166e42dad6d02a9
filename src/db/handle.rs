//! The database handle.

use super::last_write::LastWrite;
use super::postgres::begin::begin;
use super::sqlite::group_commit::Writer;
use super::sqlite::pool::ConnectionPool;
use super::transaction::{ReadTransaction, Snapshot, Tx, WriteTransaction};
use sqlx::Result;
use sqlx_postgres::PgPool;
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
                (write.begin(is_exclusive).await.map(WriteTransaction::Sqlite), last_write)
            }
            Self::Postgres { pool, last_write } => {
                (begin(pool, "BEGIN").await.map(WriteTransaction::Postgres), last_write)
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
                Ok(Snapshot(ReadTransaction::Postgres(begin(pool, POSTGRES).await?)))
            }
        }
    }

    /// Fails if a file of the SQLite database was removed or replaced since it was opened. Logs the
    /// loss once, and its end.
    pub fn check_files(&self) -> Result<()> {
        match self {
            Self::Sqlite { write, .. } => write.check_files(),
            Self::Postgres { .. } => Ok(()),
        }
    }

    /// `sqlite` or `postgres`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres { .. } => "postgres",
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
