//! Checks that the times of rows are from 1970 to the end of 9999. Responses show others as the
//! nearest time that RFC 3339 can represent.

use super::report::Check;
use super::tables::TimeColumns;
use crate::db::query::query;
use crate::db::transaction::Snapshot;
use sqlx::Result;

/// Lists at most `limit` rows of `tables` with a time out of range, or that is no time.
pub(super) async fn check(
    snapshot: &mut Snapshot,
    tables: &[&TimeColumns],
    limit: i64,
) -> Result<Check> {
    Check::of("times", all_out_of_range(snapshot, tables, limit).await, |text| text)
}

async fn all_out_of_range(
    snapshot: &mut Snapshot,
    tables: &[&TimeColumns],
    limit: i64,
) -> Result<Vec<String>> {
    let mut found = vec![];
    for &&table in tables {
        let rows = out_of_range(snapshot, table, limit).await?;
        found.extend(rows.into_iter().map(|(id,)| format!("{} {id}", table.row_kind)));
    }
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found)
}

/// The ids of the first `limit` rows of `table` with a time out of range.
async fn out_of_range(
    snapshot: &mut Snapshot,
    table: TimeColumns,
    limit: i64,
) -> Result<Vec<(i64,)>> {
    // SQLite compares times as texts, which have four digits for the year.
    const SQLITE: [&str; 3] =
        ["COALESCE(unixepoch(", "), -1) < 0 OR ", " NOT GLOB '[0-9][0-9][0-9][0-9]-*')"];
    const POSTGRES: [&str; 3] =
        ["NOT ", " >= '1970-01-01 00:00:00+00' OR NOT ", " < '10000-01-01 00:00:00+00')"];
    let mut statement = query(snapshot, "SELECT id FROM ").push(table.table);
    for (index, &column) in table.columns.iter().enumerate() {
        statement = statement.push(if index == 0 { " WHERE (" } else { " OR (" });
        statement = statement.push(column).push(" IS NOT NULL AND (");
        statement = statement.push_either(SQLITE[0], POSTGRES[0]).push(column);
        statement = statement.push_either(SQLITE[1], POSTGRES[1]).push(column);
        statement = statement.push_either(SQLITE[2], POSTGRES[2]).push(")");
    }
    statement.push(" ORDER BY id LIMIT ").push_bind(limit).all().await
}
