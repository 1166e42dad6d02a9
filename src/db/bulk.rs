//! Helpers for bulk writes. Triggers and a slow index are disabled or dropped for one transaction
//! and restored at its end.

use super::error::OpenError;
use super::file_fault::Use;
use super::query::query;
use super::sqlite::pool::ConnectionPool;
use super::timeout::ACQUIRE_TIMEOUT;
use super::transaction::{Snapshot, Tx, WriteTransaction};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Result};
use std::path::Path;

/// The index that is slowest to maintain row by row on Postgres. Rebuilding it is faster.
const POSTGRES_INDEX: &str = "messages_search";

/// Disabled triggers and dropped indexes, to be restored in the same transaction.
#[derive(Debug)]
#[must_use = "triggers and indexes must be restored with `restore_triggers`"]
pub struct DisabledSchema {
    /// SQL that restores them, as read from the database.
    statements: Vec<String>,
}

/// Opens a snapshot of the SQLite file at `path`, which may belong to another program. The file is
/// opened read-only, unless `is_copy`: then it is a copy that Octopus made, and SQLite may recover
/// it.
pub async fn snapshot_of(path: &Path, is_copy: bool) -> Result<Snapshot, OpenError> {
    let usage = if is_copy { Use::Write } else { Use::Read };
    open_snapshot(path, is_copy)
        .await
        .map_err(|cause| OpenError::from(cause).explained(path, usage))
}

async fn open_snapshot(path: &Path, is_copy: bool) -> Result<Snapshot> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(!is_copy)
        .busy_timeout(ACQUIRE_TIMEOUT);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    Snapshot::of(&ConnectionPool::new(pool)).await
}

/// Raises the memory limits of the database for a long transaction.
pub async fn raise_memory_limits(tx: &mut Tx) -> Result<()> {
    let sql = match &tx.open {
        WriteTransaction::Sqlite(_) => "PRAGMA cache_size = -131072",
        WriteTransaction::Postgres(_) => "SET LOCAL maintenance_work_mem = '256MB'",
    };
    execute(tx, sql.to_owned()).await
}

/// Blocks other writes to `tables` until `tx` ends. Does nothing on SQLite, which has one writer.
pub async fn lock_tables(tx: &mut Tx, tables: &[&'static str]) -> Result<()> {
    if matches!(tx.open, WriteTransaction::Sqlite(_)) {
        return Ok(());
    }
    execute(tx, format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", tables.join(", "))).await
}

/// Disables the triggers of `tables`. With `indexes`, also drops the Postgres index that is faster
/// to rebuild.
pub async fn disable_triggers(
    tx: &mut Tx,
    tables: &[&'static str],
    indexes: bool,
) -> Result<DisabledSchema> {
    let mut statements = vec![];
    for table in tables {
        match &tx.open {
            WriteTransaction::Sqlite(_) => {
                const TRIGGERS: &str = "SELECT name, sql FROM sqlite_schema \
                    WHERE type = 'trigger' AND tbl_name = $1 ORDER BY rowid";
                let triggers: Vec<(String, String)> =
                    query(&mut *tx, TRIGGERS).bind(*table).all().await?;
                for (name, sql) in triggers {
                    execute(tx, format!("DROP TRIGGER \"{}\"", name.replace('"', "\"\""))).await?;
                    statements.push(sql);
                }
            }
            WriteTransaction::Postgres(_) => {
                execute(tx, format!("ALTER TABLE {table} DISABLE TRIGGER USER")).await?;
                statements.push(format!("ALTER TABLE {table} ENABLE TRIGGER USER"));
            }
        }
    }
    if indexes && matches!(tx.open, WriteTransaction::Postgres(_)) {
        const INDEX: &str = "SELECT indexdef FROM pg_indexes \
            WHERE schemaname = current_schema() AND indexname = $1";
        let found: Option<(String,)> =
            query(&mut *tx, INDEX).bind(POSTGRES_INDEX).optional().await?;
        if let Some((definition,)) = found {
            execute(tx, format!("DROP INDEX {POSTGRES_INDEX}")).await?;
            statements.push(definition);
        }
    }
    Ok(DisabledSchema { statements })
}

impl DisabledSchema {
    /// Restores the triggers and indexes.
    pub async fn restore_triggers(self, tx: &mut Tx) -> Result<()> {
        for statement in self.statements {
            execute(tx, statement).await?;
        }
        Ok(())
    }
}

/// The highest id that `table` ever assigned.
pub async fn highest_id(tx: &mut Tx, table: &'static str) -> Result<i64> {
    if tx.is_sqlite() {
        const SQL: &str = "SELECT seq FROM sqlite_sequence WHERE name = $1";
        let found: Option<(i64,)> = query(tx, SQL).bind(table).optional().await?;
        return Ok(found.map_or(0, |(id,)| id));
    }
    let name = sequence(tx, table).await?;
    let WriteTransaction::Postgres(tx) = &mut tx.open else { return Ok(0) };
    let sql = AssertSqlSafe(format!("SELECT last_value, is_called FROM {name}"));
    let (last, is_called): (i64, bool) = sqlx::query_as(sql).fetch_one(&mut **tx).await?;
    Ok(if is_called { last } else { last - 1 })
}

/// Makes the next row of `table` get an id above `id`, which must not be below the highest id.
pub async fn skip_ids(tx: &mut Tx, table: &'static str, id: i64) -> Result<()> {
    const UPDATE: &str = "UPDATE sqlite_sequence SET seq = $2 WHERE name = $1";
    const INSERT: &str = "INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)";
    if !tx.is_sqlite() {
        // Unlike setval(), this is rolled back with the transaction.
        let sequence = sequence(tx, table).await?;
        return execute(tx, format!("ALTER SEQUENCE {sequence} RESTART WITH {}", id + 1)).await;
    }
    if query(&mut *tx, UPDATE).bind(table).bind(id).execute().await? == 0 {
        query(tx, INSERT).bind(table).bind(id).execute().await?;
    }
    Ok(())
}

/// Name of the Postgres sequence for the ids of `table`.
async fn sequence(tx: &mut Tx, table: &'static str) -> Result<String> {
    const SQL: &str = "SELECT pg_get_serial_sequence($1, 'id')";
    let (name,): (String,) = query(tx, SQL).bind(table).one().await?;
    Ok(name)
}

/// Runs SQL that was read from the database or built from names in the program.
async fn execute(tx: &mut Tx, sql: String) -> Result<()> {
    match &mut tx.open {
        WriteTransaction::Sqlite(tx) => {
            tx.enter_alone().await?;
            let (connection, _) = tx.enter()?;
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
            tx.mark_succeeded();
            Ok(())
        }
        WriteTransaction::Postgres(tx) => {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **tx).await.map(drop)
        }
    }
}
