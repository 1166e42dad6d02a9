//! Version, size and connection pools of a database.

use super::files::with_suffix;
use super::handle::Db;
use super::query::query;
use sqlx::Result;

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
        Some(std::fs::metadata(with_suffix(path, "-wal")).map_or(0, |m| m.len()))
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
}
