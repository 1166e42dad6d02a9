//! A statement that runs on SQLite or Postgres.

use super::handle::Db;
use super::last_write::LastWrite;
use super::sqlite::group_commit::GroupedTransaction;
use super::sqlite::pool::ConnectionPool;
use super::transaction::{ReadTransaction, Snapshot, Tx, WriteTransaction};
use serde::Deserialize;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Encode, FromRow, Result, Sqlite, SqliteConnection, Type};
use sqlx_postgres::{PgArguments, PgConnection, PgPool, PgRow, Postgres};
use std::borrow::Cow;
use std::fmt::{Debug, Formatter, Write};

/// Where a statement runs: `&Db` or `&mut Snapshot` to read, `&mut Tx` to write.
pub struct Executor<'c>(Target<'c>, Option<&'c LastWrite>);

/// Target of a statement, with the arguments for its driver.
enum Target<'c> {
    ConnectionPool(&'c ConnectionPool, SqliteArguments),
    Sqlite(&'c mut SqliteConnection, SqliteArguments),
    GroupedTransaction(&'c mut GroupedTransaction, SqliteArguments),
    PgPool(&'c PgPool, PgArguments),
    Pg(&'c mut PgConnection, PgArguments),
}

impl Debug for Executor<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Target::ConnectionPool(..) => "ConnectionPool",
            Target::Sqlite(..) => "Sqlite",
            Target::GroupedTransaction(..) => "GroupedTransaction",
            Target::PgPool(..) => "PgPool",
            Target::Pg(..) => "Pg",
        })
    }
}

impl<'c> From<&'c Db> for Executor<'c> {
    fn from(db: &'c Db) -> Self {
        match db {
            Db::Sqlite { read, .. } => {
                Executor(Target::ConnectionPool(read, SqliteArguments::default()), None)
            }
            Db::Postgres { pool, .. } => {
                Executor(Target::PgPool(pool, PgArguments::default()), None)
            }
        }
    }
}

impl<'c> From<&'c mut Tx> for Executor<'c> {
    fn from(tx: &'c mut Tx) -> Self {
        Executor(Target::from(&mut tx.open), Some(&tx.last_write))
    }
}

impl<'c> From<&'c mut Snapshot> for Executor<'c> {
    fn from(snapshot: &'c mut Snapshot) -> Self {
        Executor(Target::from(&mut snapshot.0), None)
    }
}

impl<'c> From<&'c mut ReadTransaction> for Target<'c> {
    fn from(reading: &'c mut ReadTransaction) -> Self {
        match reading {
            ReadTransaction::Sqlite(pooled) => {
                Self::Sqlite(pooled.connection(), SqliteArguments::default())
            }
            ReadTransaction::Postgres(tx) => Self::Pg(tx, PgArguments::default()),
        }
    }
}

impl<'c> From<&'c mut WriteTransaction> for Target<'c> {
    fn from(writing: &'c mut WriteTransaction) -> Self {
        match writing {
            WriteTransaction::Sqlite(tx) => {
                Self::GroupedTransaction(tx, SqliteArguments::default())
            }
            WriteTransaction::Postgres(tx) => Self::Pg(tx, PgArguments::default()),
        }
    }
}

/// A value that both drivers can bind.
pub trait Bind<'q>:
    Encode<'q, Sqlite> + Type<Sqlite> + Encode<'q, Postgres> + Type<Postgres>
{
}
impl<'q, T> Bind<'q> for T where
    T: Encode<'q, Sqlite> + Type<Sqlite> + Encode<'q, Postgres> + Type<Postgres>
{
}

/// A type that both drivers can decode a row into; `#[derive(sqlx::FromRow)]` is enough.
pub trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}
impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{}

/// A statement and its arguments. Its SQL always comes from `&'static str`.
#[derive(Debug)]
pub struct Query<'c> {
    on: Executor<'c>,
    sql: Cow<'static, str>,
    binds: usize,
    error: Option<BoxDynError>,
}

/// Creates a statement that runs on `on`. Bind one value for each `$n`.
pub fn query<'c>(on: impl Into<Executor<'c>>, sql: &'static str) -> Query<'c> {
    Query { on: on.into(), sql: sql.into(), binds: 0, error: None }
}

macro_rules! run {
    ($query:ident, $make:ident, $fetch:ident $(, $then:expr)?) => {{
        if let Some(error) = $query.error {
            return Err(sqlx::Error::Encode(error));
        }
        let sql = $query.sql;
        let Executor(target, last_write) = $query.on;
        let result = match target {
            Target::GroupedTransaction(tx, a) => {
                let (connection, before) = tx.enter()?;
                let sql = if before.is_empty() { sql } else { (before.to_owned() + &sql).into() };
                let sql = AssertSqlSafe(sql);
                let result = sqlx::$make(sql, a).$fetch(connection).await $(.map($then))?;
                if result.is_ok() {
                    tx.mark_succeeded();
                }
                result
            }
            Target::ConnectionPool(pool, a) => {
                let mut pooled = pool.acquire().await?;
                let sql = AssertSqlSafe(sql);
                let result = sqlx::$make(sql, a).$fetch(pooled.connection()).await $(.map($then))?;
                if result.is_ok() {
                    pooled.mark_clean();
                }
                result
            }
            Target::Sqlite(c, a) => {
                sqlx::$make(AssertSqlSafe(sql), a).$fetch(c).await $(.map($then))?
            }
            Target::PgPool(c, a) => {
                sqlx::$make(AssertSqlSafe(sql), a).$fetch(c).await $(.map($then))?
            }
            Target::Pg(c, a) => {
                sqlx::$make(AssertSqlSafe(sql), a).$fetch(c).await $(.map($then))?
            }
        };
        note(last_write, result)
    }};
}

impl Query<'_> {
    /// Binds the next `$n`.
    #[must_use]
    pub fn bind<'q>(mut self, value: impl Bind<'q>) -> Self {
        let added = match &mut self.on.0 {
            Target::ConnectionPool(_, a)
            | Target::Sqlite(_, a)
            | Target::GroupedTransaction(_, a) => a.add(value),
            Target::PgPool(_, a) | Target::Pg(_, a) => a.add(value),
        };
        self.error = self.error.or(added.err());
        self.binds += 1;
        self
    }

    /// Appends SQL, for an optional filter.
    #[must_use]
    pub fn push(mut self, sql: &'static str) -> Self {
        self.sql.to_mut().push_str(sql);
        self
    }

    /// Appends the next `$n` and binds it.
    #[must_use]
    pub fn push_bind<'q>(self, value: impl Bind<'q>) -> Self {
        let mut query = self.bind(value);
        let _ = write!(query.sql.to_mut(), "${}", query.binds);
        query
    }

    /// Appends an aggregate that returns all rows as one JSON array of arrays. `values` is the
    /// comma-separated list of expressions for each row. Decode the result with [`from_json`]. Use
    /// it for many rows: on SQLite, each row fetched costs one thread hop. The order is undefined.
    #[must_use]
    pub fn push_json_of_rows(self, values: &'static str) -> Self {
        const POSTGRES: (&str, &str) =
            ("CAST(COALESCE(json_agg(json_build_array(", ")), '[]') AS TEXT)");
        const SQLITE: (&str, &str) = ("json_group_array(json_array(", "))");
        self.push_either(SQLITE.0, POSTGRES.0).push(values).push_either(SQLITE.1, POSTGRES.1)
    }

    /// Appends SQL that differs between the databases.
    #[must_use]
    pub fn push_either(self, sqlite: &'static str, postgres: &'static str) -> Self {
        let is_sqlite = match self.on.0 {
            Target::ConnectionPool(..) | Target::Sqlite(..) | Target::GroupedTransaction(..) => {
                true
            }
            Target::PgPool(..) | Target::Pg(..) => false,
        };
        self.push(if is_sqlite { sqlite } else { postgres })
    }

    /// Runs the statement. Returns the number of affected rows.
    pub async fn execute(mut self) -> Result<u64> {
        if let Executor(Target::GroupedTransaction(tx, _), last_write) = &mut self.on {
            // Separately, because SQLite counts the affected rows of all statements in a text.
            note(*last_write, tx.enter_alone().await)?;
        }
        run!(self, query_with, execute, |done| done.rows_affected())
    }

    /// Runs the statement and returns its row. Fails with `RowNotFound` if there is none.
    pub async fn one<O: Row>(self) -> Result<O> {
        self.optional().await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// Runs the statement and returns the first row, if there is one.
    pub async fn optional<O: Row>(self) -> Result<Option<O>> {
        run!(self, query_as_with, fetch_optional)
    }

    /// Runs the statement and returns every row.
    pub async fn all<O: Row>(self) -> Result<Vec<O>> {
        run!(self, query_as_with, fetch_all)
    }
}

fn note<T>(last_write: Option<&LastWrite>, result: Result<T>) -> Result<T> {
    match last_write {
        Some(last_write) => last_write.note(result),
        None => result,
    }
}

/// Decodes the rows from [`Query::push_json_of_rows`]. A struct receives the values in the order of
/// its fields.
pub fn from_json<'r, T: Deserialize<'r>>(rows: &'r str) -> Result<Vec<T>> {
    serde_json::from_str(rows).map_err(|error| sqlx::Error::Decode(error.into()))
}
