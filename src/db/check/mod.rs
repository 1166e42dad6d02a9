//! Verifies a database without changing it.

pub(super) mod report;
mod search;
pub(super) mod tables;
mod times;

use crate::core::text::folded;
use crate::db::handle::Db;
use crate::db::query::query;
use crate::db::transaction::Snapshot;
use report::Check;
use sqlx::Result;
use tables::{NameKeys, SearchIndex, TableChecks, TableRule, TimeColumns};

/// Maximum number of rows listed per problem.
const MAX_LISTED: i64 = 10;
/// Rows read per statement.
const BATCH: i64 = 1000;

/// The checks of the tables that belong to no feature.
const INSTALLATION: TableChecks = TableChecks {
    id_tables: &["webhook_outbox"],
    rules: &[TableRule {
        name: "installation row",
        row_kind: "installation",
        sql: "SELECT w.id FROM (SELECT CAST(1 AS BIGINT) AS id) w \
              WHERE (SELECT CAST(COUNT(*) AS BIGINT) FROM installation) <> 1 LIMIT $1",
    }],
    times: &[TimeColumns {
        table: "webhook_outbox",
        row_kind: "webhook event",
        columns: &["created_at", "next_attempt_at", "gave_up_at"],
    }],
    ..TableChecks::NONE
};

/// Runs every check that does not need the audit key. `tables` has the checks of each feature.
pub async fn check(db: &Db, tables: &[TableChecks]) -> Result<Vec<Check>> {
    let tables = [tables, &[INSTALLATION]].concat();
    let rules: Vec<&TableRule> = tables.iter().flat_map(|table| table.rules).collect();
    let names: Vec<&NameKeys> = tables.iter().flat_map(|table| table.name_keys).collect();
    let ids: Vec<&'static str> = tables.iter().flat_map(|table| table.id_tables).copied().collect();
    let times: Vec<&TimeColumns> = tables.iter().flat_map(|table| table.times).collect();
    let indexes: Vec<&SearchIndex> = tables.iter().flat_map(|table| table.search_indexes).collect();

    let mut snapshot = db.snapshot().await?;
    let mut checks = if snapshot.is_sqlite() {
        file_checks(&mut snapshot).await?
    } else {
        vec![not_enforced(&mut snapshot).await?]
    };
    for rule in rules {
        let rows = query(&mut snapshot, rule.sql).bind(MAX_LISTED).all::<(i64,)>().await;
        checks.push(Check::of(rule.name, rows, |(id,)| format!("{} {id}", rule.row_kind))?);
    }
    let wrong_name_keys = wrong_name_keys(&mut snapshot, &names).await;
    // The name is older than the registration of features, and programs may look for it.
    checks.push(Check::of("API key and user names", wrong_name_keys, |text| text)?);
    checks.push(times::check(&mut snapshot, &times, MAX_LISTED).await?);
    checks.push(next_ids(&mut snapshot, &ids).await?);
    if let Db::Sqlite { read, .. } = db {
        for index in indexes {
            checks.push(search::check(&read.options(), index).await?);
        }
    }
    Ok(checks)
}

/// Runs the checks of an SQLite file that do not depend on its schema.
pub async fn check_file(db: &Db) -> Result<Vec<Check>> {
    file_checks(&mut db.snapshot().await?).await
}

/// Runs SQLite's own checks: the structure of the file, and its foreign keys.
async fn file_checks(snapshot: &mut Snapshot) -> Result<Vec<Check>> {
    const DANGLING: &str = "SELECT \"table\", rowid, parent FROM pragma_foreign_key_check LIMIT 10";
    let report = query(&mut *snapshot, "PRAGMA integrity_check(10)").all::<(String,)>().await;
    let mut integrity = Check::of("file integrity", report, |(text,)| text)?;
    integrity.problems.retain(|problem| problem != "ok");
    let dangling = query(snapshot, DANGLING).all().await;
    let problem = |(table, row, parent): (String, Option<i64>, String)| match row {
        Some(row) => format!("row {row} of {table} refers to a missing row of {parent}"),
        None => format!("a row of {table} refers to a missing row of {parent}"),
    };
    Ok(vec![integrity, Check::of("foreign keys", dangling, problem)?])
}

/// Checks for constraints, indexes and triggers that Postgres does not enforce.
async fn not_enforced(snapshot: &mut Snapshot) -> Result<Check> {
    const SQL: &str = "SELECT CAST('constraint ' || conname AS TEXT) FROM pg_constraint \
         WHERE connamespace = CAST(current_schema() AS regnamespace) AND NOT convalidated \
         UNION ALL SELECT CAST('index ' || c.relname AS TEXT) FROM pg_index i \
         JOIN pg_class c ON c.oid = i.indexrelid \
         WHERE c.relnamespace = CAST(current_schema() AS regnamespace) \
         AND NOT (i.indisvalid AND i.indisready) \
         UNION ALL SELECT CAST('trigger ' || t.tgname AS TEXT) FROM pg_trigger t \
         JOIN pg_class c ON c.oid = t.tgrelid \
         WHERE c.relnamespace = CAST(current_schema() AS regnamespace) AND t.tgenabled = 'D'";
    let found = query(snapshot, SQL).all::<(String,)>().await;
    let problem = |(name,)| format!("{name} is not enforced");
    Check::of("constraints, indexes and triggers", found, problem)
}

/// Lists rows whose stored case-folded name does not match their name: searches by name would miss
/// them.
async fn wrong_name_keys(snapshot: &mut Snapshot, names: &[&NameKeys]) -> Result<Vec<String>> {
    let mut found = vec![];
    for &&NameKeys { row_kind, sql } in names {
        let mut after = 0;
        loop {
            let rows: Vec<(i64, String, String, String, String)> =
                query(&mut *snapshot, sql).bind(after).bind(BATCH).all().await?;
            let Some((last, ..)) = rows.last() else { break };
            after = *last;
            let differs = rows.iter().filter(|(_, one, one_key, other, other_key)| {
                folded(one) != *one_key || folded(other) != *other_key
            });
            found.extend(differs.map(|(id, ..)| format!("{row_kind} {id}")));
        }
    }
    found.truncate(usize::try_from(MAX_LISTED).unwrap_or(usize::MAX));
    Ok(found)
}

/// Checks that no id of `tables` will be assigned twice.
async fn next_ids(snapshot: &mut Snapshot, tables: &[&'static str]) -> Result<Check> {
    // The highest id in each table, and the last id that was assigned.
    let mut statement = query(snapshot, "SELECT CAST(t.name AS TEXT) FROM (");
    for (number, &table) in tables.iter().enumerate() {
        statement = statement
            .push(if number == 0 { "SELECT '" } else { " UNION ALL SELECT '" })
            .push(table)
            .push("' AS name, (SELECT MAX(id) FROM ")
            .push(table)
            .push(") AS last, ")
            .push_either(
                "(SELECT seq FROM sqlite_sequence WHERE name = '",
                "(SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM ",
            )
            .push(table)
            .push_either("') AS given", "_id_seq) AS given");
    }
    let statement = statement.push(") t WHERE t.last > COALESCE(t.given, 0)");
    let found = statement.all::<(String,)>().await;
    let problem = |(table,)| format!("the next row of {table} would get an id that is in use");
    Check::of("next ids", found, problem)
}
