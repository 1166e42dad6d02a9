//! One database handle, two back ends. Statements are written once, in the SQL both share
//! (`$1`, `RETURNING`, `ON CONFLICT`), and run on whichever `DATABASE_URL` chose.

mod backfill;
mod backup;
pub mod bulk;
mod check;
mod connect;
mod copy;
mod group;
mod last_write;
pub mod lease;
mod lender;
mod lock;
mod migrate;
mod notify;
mod private_file;
mod query;
mod restore;
mod watch;

pub use backup::{BackupError, back_up, belongs_to};
pub use check::{Check, check, check_file};
pub use connect::{OpenError, open, open_and_tell, open_any_file, open_existing, open_file};
pub use copy::{CopyError, remove_leftover};
pub use group::{Writer, settled};
pub use last_write::LastWrite;
pub use lender::Lender;
pub use lock::Lock;
pub use notify::Listener;
pub use query::{Bind, On, Query, Row, from_json, query};
pub use restore::{RestoreError, Restored};
pub use watch::{Beat, Heard, PostgresWatch, SqliteWatch, Watch};

use group::Member;
use lender::{Lent, run};
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Result, Transaction};
use std::path::PathBuf;
use std::sync::Arc;

/// Reads go straight through `&Db`; several that must agree go through a [`Snapshot`]; writes need
/// a [`Tx`].
#[derive(Clone, Debug)]
pub enum Db {
    /// A file: one connection writes, a few read.
    Sqlite {
        /// Read-only connections.
        read: Lender,
        /// The one connection that writes.
        write: Writer,
        /// The file.
        path: Arc<PathBuf>,
        /// How the last write went.
        last_write: LastWrite,
    },
    /// A server.
    Postgres {
        /// Connections to it.
        pool: PgPool,
        /// How the last write went.
        last_write: LastWrite,
    },
}

/// An open transaction that may write. Dropping it rolls back.
#[derive(Debug)]
pub struct Tx {
    open: Writing,
    last_write: LastWrite,
}

/// A transaction of either database that writes.
#[derive(Debug)]
enum Writing {
    Sqlite(Member),
    Postgres(Transaction<'static, Postgres>),
}

/// One that reads.
#[derive(Debug)]
enum Open {
    Sqlite(Lent),
    Postgres(Transaction<'static, Postgres>),
}

/// A transaction that only reads, and sees one state of the database throughout.
#[derive(Debug)]
pub struct Snapshot(Open);

/// Connections of one pool.
#[derive(Debug)]
pub struct PoolState {
    /// `read`, `write` or `postgres`.
    pub name: &'static str,
    /// Open and waiting for work.
    pub idle: usize,
    /// Open and at work.
    pub used: usize,
}

impl Db {
    /// Begins a write. On SQLite, writers queue here rather than fail half-way with `SQLITE_BUSY`, and
    /// those who wait share a transaction and its sync of the disk: what one of them does fails or
    /// is rolled back alone, but for a disk that fails. On Postgres it is READ COMMITTED.
    pub async fn begin(&self) -> Result<Tx> {
        self.begin_write(false).await
    }

    /// Begins a long write, that nobody shares: who was before it need not wait for its end.
    pub async fn begin_long(&self) -> Result<Tx> {
        self.begin_write(true).await
    }

    async fn begin_write(&self, is_alone: bool) -> Result<Tx> {
        let (open, last_write) = match self {
            Self::Sqlite { write, last_write, .. } => {
                (write.begin(is_alone).await.map(Writing::Sqlite), last_write)
            }
            Self::Postgres { pool, last_write } => {
                (begin_postgres(pool, "BEGIN").await.map(Writing::Postgres), last_write)
            }
        };
        Ok(Tx { open: last_write.note(open)?, last_write: last_write.clone() })
    }

    /// Begins a read of several statements that see one state.
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

    /// What the server or the library calls its version.
    pub async fn version(&self) -> Result<String> {
        let sql = match self {
            Self::Sqlite { .. } => "SELECT sqlite_version()",
            Self::Postgres { .. } => "SHOW server_version",
        };
        let (version,): (String,) = query(self, sql).one().await?;
        Ok(version)
    }

    /// Bytes the database takes, its indexes included.
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

    /// Bytes in SQLite's write-ahead log; `None` on Postgres.
    pub fn wal_bytes(&self) -> Option<u64> {
        let Self::Sqlite { path, .. } = self else { return None };
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        Some(std::fs::metadata(wal).map_or(0, |m| m.len()))
    }

    /// How busy the pools are.
    pub fn pools(&self) -> Vec<PoolState> {
        let state = |name, (open, idle): (usize, usize)| PoolState {
            name,
            idle,
            used: open.saturating_sub(idle),
        };
        match self {
            Self::Sqlite { read, write, .. } => {
                let (read, write) = (read.open_and_idle(), write.lender().open_and_idle());
                vec![state("read", read), state("write", write)]
            }
            Self::Postgres { pool, .. } => {
                vec![state("postgres", (pool.size() as usize, pool.num_idle()))]
            }
        }
    }

    /// Closes every connection. SQLite's last one writes the log back into the file.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { read, write, .. } => {
                read.close().await;
                write.lender().close().await;
            }
            Self::Postgres { pool, .. } => pool.close().await,
        }
    }
}

/// Begins in a task of its own, which nobody can cancel: sqlx 0.9.0 takes a connection back whose
/// BEGIN was sent but not answered as if it had no transaction (its issue 4393), and whoever got it
/// next would be in the old one.
async fn begin_postgres(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await }).await;
    begun.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

impl Snapshot {
    /// Begins on a connection that `lender` has.
    async fn of(lender: &Lender) -> Result<Self> {
        let mut lent = lender.lend().await?;
        run(lent.connection(), "BEGIN").await?;
        Ok(Self(Open::Sqlite(lent)))
    }

    /// Whether it is one of SQLite.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.0, Open::Sqlite(_))
    }
}

impl Tx {
    /// Whether it is one of SQLite.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.open, Writing::Sqlite(_))
    }

    /// Makes it last. On `Ok` it is on the disk.
    pub async fn commit(self) -> Result<()> {
        self.last_write.note_end(match self.open {
            Writing::Sqlite(member) => member.commit().await,
            Writing::Postgres(tx) => tx.commit().await,
        })
    }

    /// Undoes it. Comes back when what it saw of others is on the disk; dropping does not wait for that.
    pub async fn rollback(self) -> Result<()> {
        match self.open {
            Writing::Sqlite(member) => member.rollback().await,
            Writing::Postgres(tx) => tx.rollback().await,
        }
    }
}
