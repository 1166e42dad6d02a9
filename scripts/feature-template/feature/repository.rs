//! SQL statements for @the things@.

use super::model::{@Thing@, @Thing@Changes, @Thing@Filter, New@Thing@};
use crate::db::{Executor, TableChecks, Tx, query};
use crate::http::Slice;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// The checks of `octopus verify`.
pub const CHECKS: TableChecks = TableChecks { id_tables: &["@things@"], ..TableChecks::NONE };

/// The columns of [`@Thing@`].
macro_rules! columns {
    () => {
        "id, title, created_at, updated_at"
    };
}

/// Lists @the things@ by id.
pub async fn list(on: impl Into<Executor<'_>>, filter: &@Thing@Filter, slice: &Slice<i64>) -> Result<Vec<@Thing@>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM @things@ WHERE TRUE");
    let mut statement = query(on, SQL);
    if let Some(title) = &filter.title {
        statement = statement.push(" AND title = ").push_bind(&**title);
    }
    slice.cut(statement, &["id"]).all().await
}

/// Returns @the thing@ `id`, if it exists.
pub async fn find(on: impl Into<Executor<'_>>, id: i64) -> Result<Option<@Thing@>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM @things@ WHERE id = $1");
    query(on, SQL).bind(id).optional().await
}

/// Inserts @a thing@.
pub async fn insert(tx: &mut Tx, new: &New@Thing@, now: DateTime<Utc>) -> Result<@Thing@> {
    const SQL: &str = concat!(
        "INSERT INTO @things@ (title, created_at, updated_at) VALUES ($1, $2, $2) RETURNING ",
        columns!()
    );
    query(tx, SQL).bind(new.title.as_str()).bind(now).one().await
}

/// Updates @the thing@ `id`. Returns `None` if it does not exist.
pub async fn update(
    tx: &mut Tx,
    id: i64,
    changes: &@Thing@Changes,
    now: DateTime<Utc>,
) -> Result<Option<@Thing@>> {
    let mut statement = query(tx, "UPDATE @things@ SET updated_at = ").push_bind(now);
    if let Some(title) = &changes.title {
        statement = statement.push(", title = ").push_bind(title.as_str());
    }
    let returning = concat!(" RETURNING ", columns!());
    statement.push(" WHERE id = ").push_bind(id).push(returning).optional().await
}

/// Deletes @the thing@ `id`. Returns whether it existed.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM @things@ WHERE id = $1";
    Ok(query(tx, SQL).bind(id).execute().await? == 1)
}
