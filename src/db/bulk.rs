//! Many rows at once: what the schema does for each of them is set aside meanwhile, and done for
//! all of them at the end.

use super::connect::ACQUIRE_TIMEOUT;
use super::{Lender, Snapshot, Tx, Writing, query};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Result};
use std::path::Path;

/// The index that takes longest to keep up to date on Postgres, and is made faster as a whole.
const POSTGRES_INDEX: &str = "messages_search";

/// What was set aside, to be put back in the same transaction.
#[derive(Debug)]
#[must_use = "what was set aside must be put back"]
pub struct Aside {
    /// Statements that put it back, as the database itself had them.
    statements: Vec<String>,
}

/// One state of the SQLite file at `path`, which may be anybody's and is only read; `is_copy` says
/// that it may be brought in order first, because it is a copy of ours.
pub async fn snapshot_of(path: &Path, is_copy: bool) -> Result<Snapshot> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(!is_copy)
        .busy_timeout(ACQUIRE_TIMEOUT);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    Snapshot::of(&Lender::new(pool)).await
}

/// Makes room in memory for a long transaction.
pub async fn make_room(tx: &mut Tx) -> Result<()> {
    let sql = match &tx.open {
        Writing::Sqlite(_) => "PRAGMA cache_size = -131072",
        Writing::Postgres(_) => "SET LOCAL maintenance_work_mem = '256MB'",
    };
    execute(tx, sql.to_owned()).await
}

/// Makes everybody else wait who would write to `tables`, until `tx` ends. SQLite has one writer.
pub async fn lock_tables(tx: &mut Tx, tables: &[&'static str]) -> Result<()> {
    if matches!(tx.open, Writing::Sqlite(_)) {
        return Ok(());
    }
    execute(tx, format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", tables.join(", "))).await
}

/// Sets the triggers of `tables` aside; and with `indexes` what Postgres makes faster as a whole.
pub async fn set_aside(tx: &mut Tx, tables: &[&'static str], indexes: bool) -> Result<Aside> {
    let mut statements = vec![];
    for table in tables {
        match &tx.open {
            Writing::Sqlite(_) => {
                const TRIGGERS: &str = "SELECT name, sql FROM sqlite_schema \
                    WHERE type = 'trigger' AND tbl_name = $1 ORDER BY rowid";
                let triggers: Vec<(String, String)> =
                    query(&mut *tx, TRIGGERS).bind(*table).all().await?;
                for (name, sql) in triggers {
                    execute(tx, format!("DROP TRIGGER \"{}\"", name.replace('"', "\"\""))).await?;
                    statements.push(sql);
                }
            }
            Writing::Postgres(_) => {
                execute(tx, format!("ALTER TABLE {table} DISABLE TRIGGER USER")).await?;
                statements.push(format!("ALTER TABLE {table} ENABLE TRIGGER USER"));
            }
        }
    }
    if indexes && matches!(tx.open, Writing::Postgres(_)) {
        const INDEX: &str = "SELECT indexdef FROM pg_indexes \
            WHERE schemaname = current_schema() AND indexname = $1";
        let found: Option<(String,)> =
            query(&mut *tx, INDEX).bind(POSTGRES_INDEX).optional().await?;
        if let Some((definition,)) = found {
            execute(tx, format!("DROP INDEX {POSTGRES_INDEX}")).await?;
            statements.push(definition);
        }
    }
    Ok(Aside { statements })
}

impl Aside {
    /// Puts everything back as it was.
    pub async fn put_back(self, tx: &mut Tx) -> Result<()> {
        for statement in self.statements {
            execute(tx, statement).await?;
        }
        Ok(())
    }
}

/// The highest id that a row of `table` ever had.
pub async fn highest_id(tx: &mut Tx, table: &'static str) -> Result<i64> {
    if tx.is_sqlite() {
        const SQL: &str = "SELECT seq FROM sqlite_sequence WHERE name = $1";
        let found: Option<(i64,)> = query(tx, SQL).bind(table).optional().await?;
        return Ok(found.map_or(0, |(id,)| id));
    }
    let name = sequence(tx, table).await?;
    let Writing::Postgres(tx) = &mut tx.open else { return Ok(0) };
    let sql = AssertSqlSafe(format!("SELECT last_value, is_called FROM {name}"));
    let (last, is_called): (i64, bool) = sqlx::query_as(sql).fetch_one(&mut **tx).await?;
    Ok(if is_called { last } else { last - 1 })
}

/// Lets the next row of `table` have an id beyond `id`, which is not below the highest.
pub async fn skip_ids(tx: &mut Tx, table: &'static str, id: i64) -> Result<()> {
    const UPDATE: &str = "UPDATE sqlite_sequence SET seq = $2 WHERE name = $1";
    const INSERT: &str = "INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)";
    if !tx.is_sqlite() {
        // Unlike setval(), this is undone with the transaction.
        let sequence = sequence(tx, table).await?;
        return execute(tx, format!("ALTER SEQUENCE {sequence} RESTART WITH {}", id + 1)).await;
    }
    if query(&mut *tx, UPDATE).bind(table).bind(id).execute().await? == 0 {
        query(tx, INSERT).bind(table).bind(id).execute().await?;
    }
    Ok(())
}

/// What Postgres takes the ids of `table` from.
async fn sequence(tx: &mut Tx, table: &'static str) -> Result<String> {
    const SQL: &str = "SELECT pg_get_serial_sequence($1, 'id')";
    let (name,): (String,) = query(tx, SQL).bind(table).one().await?;
    Ok(name)
}

/// Runs a text that the database itself had, or one made of names in the program.
async fn execute(tx: &mut Tx, sql: String) -> Result<()> {
    match &mut tx.open {
        Writing::Sqlite(member) => {
            member.enter_alone().await?;
            let (connection, _) = member.enter()?;
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
            member.worked();
            Ok(())
        }
        Writing::Postgres(tx) => {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **tx).await.map(drop)
        }
    }
}
