//! Transactions of either database: [`Tx`] to write, [`Snapshot`] to read.

use super::last_write::LastWrite;
use super::sqlite::group_commit::GroupedTransaction;
use super::sqlite::pool::{ConnectionPool, PooledConnection, run};
use sqlx::{Result, Transaction};
use sqlx_postgres::Postgres;

/// A write transaction. Dropping it rolls back.
#[derive(Debug)]
pub struct Tx {
    pub(super) open: WriteTransaction,
    pub(super) last_write: LastWrite,
}

/// A write transaction of either database.
#[derive(Debug)]
pub(super) enum WriteTransaction {
    Sqlite(GroupedTransaction),
    Postgres(Transaction<'static, Postgres>),
}

/// A read transaction of either database.
#[derive(Debug)]
pub(super) enum ReadTransaction {
    Sqlite(PooledConnection),
    Postgres(Transaction<'static, Postgres>),
}

/// A read transaction that sees one state of the database throughout.
#[derive(Debug)]
pub struct Snapshot(pub(super) ReadTransaction);

impl Snapshot {
    /// Begins on a connection of an SQLite pool.
    pub(super) async fn of(pool: &ConnectionPool) -> Result<Self> {
        let mut pooled = pool.acquire().await?;
        run(pooled.connection(), "BEGIN").await?;
        Ok(Self(ReadTransaction::Sqlite(pooled)))
    }

    /// Returns whether it runs on SQLite.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.0, ReadTransaction::Sqlite(_))
    }
}

impl Tx {
    /// Returns whether it runs on SQLite.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.open, WriteTransaction::Sqlite(_))
    }

    /// Commits. On `Ok` the writes are durable.
    pub async fn commit(self) -> Result<()> {
        self.last_write.note_end(match self.open {
            WriteTransaction::Sqlite(tx) => tx.commit().await,
            WriteTransaction::Postgres(tx) => tx.commit().await,
        })
    }

    /// Rolls back. Returns when everything it saw of other transactions is durable; dropping does
    /// not wait for that.
    pub async fn rollback(self) -> Result<()> {
        match self.open {
            WriteTransaction::Sqlite(tx) => tx.rollback().await,
            WriteTransaction::Postgres(tx) => tx.rollback().await,
        }
    }
}
