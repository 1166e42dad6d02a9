//! A statement that runs on either database.

use super::group::Member;
use super::{Db, LastWrite, Lender, Open, Snapshot, Tx, Writing};
use serde::Deserialize;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{
    Arguments, AssertSqlSafe, Encode, FromRow, PgConnection, PgPool, Postgres, Result, Sqlite,
    SqliteConnection, Type,
};
use std::borrow::Cow;
use std::fmt::{Debug, Formatter, Write};

/// Where a statement runs: `&Db` or `&mut Snapshot` to read, `&mut Tx` to write.
pub struct On<'c>(Target<'c>, Option<&'c LastWrite>);

/// A place to run, with that driver's arguments.
enum Target<'c> {
    Lender(&'c Lender, SqliteArguments),
    Sqlite(&'c mut SqliteConnection, SqliteArguments),
    Member(&'c mut Member, SqliteArguments),
    PgPool(&'c PgPool, PgArguments),
    Pg(&'c mut PgConnection, PgArguments),
}

impl Debug for On<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Target::Lender(..) => "Lender",
            Target::Sqlite(..) => "Sqlite",
            Target::Member(..) => "Member",
            Target::PgPool(..) => "PgPool",
            Target::Pg(..) => "Pg",
        })
    }
}

impl<'c> From<&'c Db> for On<'c> {
    fn from(db: &'c Db) -> Self {
        match db {
            Db::Sqlite { read, .. } => On(Target::Lender(read, SqliteArguments::default()), None),
            Db::Postgres { pool, .. } => On(Target::PgPool(pool, PgArguments::default()), None),
        }
    }
}

impl<'c> From<&'c mut Tx> for On<'c> {
    fn from(tx: &'c mut Tx) -> Self {
        On(Target::from(&mut tx.open), Some(&tx.last_write))
    }
}

impl<'c> From<&'c mut Snapshot> for On<'c> {
    fn from(snapshot: &'c mut Snapshot) -> Self {
        On(Target::from(&mut snapshot.0), None)
    }
}

impl<'c> From<&'c mut Open> for Target<'c> {
    fn from(open: &'c mut Open) -> Self {
        match open {
            Open::Sqlite(lent) => Self::Sqlite(lent.connection(), SqliteArguments::default()),
            Open::Postgres(tx) => Self::Pg(tx, PgArguments::default()),
        }
    }
}

impl<'c> From<&'c mut Writing> for Target<'c> {
    fn from(writing: &'c mut Writing) -> Self {
        match writing {
            Writing::Sqlite(member) => Self::Member(member, SqliteArguments::default()),
            Writing::Postgres(tx) => Self::Pg(tx, PgArguments::default()),
        }
    }
}

/// What both drivers can bind.
pub trait Bind<'q>:
    Encode<'q, Sqlite> + Type<Sqlite> + Encode<'q, Postgres> + Type<Postgres>
{
}
impl<'q, T> Bind<'q> for T where
    T: Encode<'q, Sqlite> + Type<Sqlite> + Encode<'q, Postgres> + Type<Postgres>
{
}

/// What both drivers can read a row into; `#[derive(sqlx::FromRow)]` is enough.
pub trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}
impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{}

/// A statement and its arguments. Its text only ever comes from `&'static str`.
#[derive(Debug)]
pub struct Query<'c> {
    on: On<'c>,
    sql: Cow<'static, str>,
    binds: usize,
    error: Option<BoxDynError>,
}

/// A statement to run on `on`; bind as many values as it has `$n`.
pub fn query<'c>(on: impl Into<On<'c>>, sql: &'static str) -> Query<'c> {
    Query { on: on.into(), sql: sql.into(), binds: 0, error: None }
}

macro_rules! run {
    ($query:ident, $make:ident, $fetch:ident $(, $then:expr)?) => {{
        if let Some(error) = $query.error {
            return Err(sqlx::Error::Encode(error));
        }
        let sql = $query.sql;
        let On(target, last_write) = $query.on;
        let result = match target {
            Target::Member(member, a) => {
                let (connection, before) = member.enter()?;
                let sql = if before.is_empty() { sql } else { (before.to_owned() + &sql).into() };
                let sql = AssertSqlSafe(sql);
                let result = sqlx::$make(sql, a).$fetch(connection).await $(.map($then))?;
                if result.is_ok() {
                    member.worked();
                }
                result
            }
            Target::Lender(lender, a) => {
                let mut lent = lender.lend().await?;
                let sql = AssertSqlSafe(sql);
                let result = sqlx::$make(sql, a).$fetch(lent.connection()).await $(.map($then))?;
                if result.is_ok() {
                    lent.done();
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
            Target::Lender(_, a) | Target::Sqlite(_, a) | Target::Member(_, a) => a.add(value),
            Target::PgPool(_, a) | Target::Pg(_, a) => a.add(value),
        };
        self.error = self.error.or(added.err());
        self.binds += 1;
        self
    }

    /// Appends text, for a filter that is not always there.
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

    /// Appends an aggregate: all rows as a JSON array, each of them an array of these `values`, which
    /// stand there with commas between them. Many rows come back faster so, for [`from_json`] to read:
    /// on SQLite, each row that is not is a walk between two threads. In which order, the databases
    /// do not say.
    #[must_use]
    pub fn push_json_of_rows(self, values: &'static str) -> Self {
        const POSTGRES: (&str, &str) =
            ("CAST(COALESCE(json_agg(json_build_array(", ")), '[]') AS TEXT)");
        const SQLITE: (&str, &str) = ("json_group_array(json_array(", "))");
        self.push_either(SQLITE.0, POSTGRES.0).push(values).push_either(SQLITE.1, POSTGRES.1)
    }

    /// Appends what only one of the databases understands.
    #[must_use]
    pub fn push_either(self, sqlite: &'static str, postgres: &'static str) -> Self {
        let is_sqlite = match self.on.0 {
            Target::Lender(..) | Target::Sqlite(..) | Target::Member(..) => true,
            Target::PgPool(..) | Target::Pg(..) => false,
        };
        self.push(if is_sqlite { sqlite } else { postgres })
    }

    /// Runs it; the number of rows it touched.
    pub async fn execute(mut self) -> Result<u64> {
        if let On(Target::Member(member, _), last_write) = &mut self.on {
            // By itself, as the rows of all statements of a text are counted.
            note(*last_write, member.enter_alone().await)?;
        }
        run!(self, query_with, execute, |done| done.rows_affected())
    }

    /// The one row there must be.
    pub async fn one<O: Row>(self) -> Result<O> {
        self.optional().await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The first row, if there is one.
    pub async fn optional<O: Row>(self) -> Result<Option<O>> {
        run!(self, query_as_with, fetch_optional)
    }

    /// Every row.
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

/// The rows that [`Query::push_json_of_rows`] gave. A struct takes the values in the order of its
/// fields.
pub fn from_json<'r, T: Deserialize<'r>>(rows: &'r str) -> Result<Vec<T>> {
    serde_json::from_str(rows).map_err(|error| sqlx::Error::Decode(error.into()))
}
