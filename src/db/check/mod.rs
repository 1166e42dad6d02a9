//! Verifies a database without changing it.

pub(super) mod report;
mod search;

use crate::core::text::folded;
use crate::db::handle::Db;
use crate::db::query::query;
use crate::db::transaction::Snapshot;
use report::Check;
use sqlx::Result;

/// Maximum number of rows listed per problem.
const MAX_LISTED: i64 = 10;
/// Rows read per statement.
const BATCH: i64 = 1000;

/// A rule that no constraint of the schema can enforce: values stored twice must agree.
struct Rule {
    name: &'static str,
    /// The kind of row that the rule applies to, as named in the report.
    row_kind: &'static str,
    /// Selects the ids of at most `$1` rows that break the rule.
    sql: &'static str,
}

/// Rules for both databases.
const RULES: [Rule; 6] = [
    // Conversations that are imported or deleted in several transactions (`retired_at`) are left
    // out.
    Rule {
        name: "message sequence numbers",
        row_kind: "conversation",
        sql: "SELECT c.id FROM conversations c WHERE c.retired_at IS NULL AND (c.last_seq <> \
              (SELECT CAST(COUNT(*) AS BIGINT) FROM messages m WHERE m.conversation_id = c.id) OR \
              c.last_seq <> COALESCE((SELECT MAX(m.seq) FROM messages m \
              WHERE m.conversation_id = c.id), 0)) ORDER BY c.id LIMIT $1",
    },
    Rule {
        name: "conversation timestamps",
        row_kind: "conversation",
        sql: "SELECT c.id FROM conversations c WHERE c.retired_at IS NULL AND \
              ((c.last_seq = 0 AND c.active_at <> c.created_at) OR EXISTS \
              (SELECT 1 FROM messages m WHERE m.conversation_id = c.id AND m.seq = c.last_seq \
              AND m.created_at <> c.active_at)) ORDER BY c.id LIMIT $1",
    },
    Rule {
        name: "conversation external ids",
        row_kind: "conversation",
        sql: "SELECT c.id FROM conversations c WHERE c.retired_at IS NULL \
              AND c.external_id IS NULL ORDER BY c.id LIMIT $1",
    },
    Rule {
        name: "deleted messages",
        row_kind: "message",
        sql: "SELECT m.id FROM messages m WHERE m.deleted_at IS NOT NULL \
              AND (m.content <> '' OR m.metadata IS NOT NULL) ORDER BY m.id LIMIT $1",
    },
    Rule {
        name: "API key rotations",
        row_kind: "API key",
        sql: "SELECT k.id FROM api_keys k WHERE EXISTS (SELECT 1 FROM api_keys o \
              WHERE (o.id = k.rotated_to_id AND COALESCE(o.rotated_from_id, 0) <> k.id) \
              OR (o.id = k.rotated_from_id AND COALESCE(o.rotated_to_id, 0) <> k.id)) \
              ORDER BY k.id LIMIT $1",
    },
    Rule {
        name: "installation row",
        row_kind: "installation",
        sql: "SELECT w.id FROM (SELECT CAST(1 AS BIGINT) AS id) w \
              WHERE (SELECT CAST(COUNT(*) AS BIGINT) FROM installation) <> 1 LIMIT $1",
    },
];

/// Runs every check that does not need the audit key.
pub async fn check(db: &Db) -> Result<Vec<Check>> {
    let mut snapshot = db.snapshot().await?;
    let mut checks = if snapshot.is_sqlite() {
        file_checks(&mut snapshot).await?
    } else {
        vec![not_enforced(&mut snapshot).await?]
    };
    for rule in &RULES {
        let rows = query(&mut snapshot, rule.sql).bind(MAX_LISTED).all::<(i64,)>().await;
        checks.push(Check::of(rule.name, rows, |(id,)| format!("{} {id}", rule.row_kind))?);
    }
    let wrong_name_keys = wrong_name_keys(&mut snapshot).await;
    checks.push(Check::of("API key and user names", wrong_name_keys, |text| text)?);
    checks.push(next_ids(&mut snapshot).await?);
    if let Db::Sqlite { read, .. } = db {
        checks.push(search::check(&read.options()).await?);
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

/// Lists keys and users whose stored case-folded name does not match their name: searches by name
/// would miss them.
async fn wrong_name_keys(snapshot: &mut Snapshot) -> Result<Vec<String>> {
    const KEYS: &str = "SELECT id, name, name_key, '', '' FROM api_keys \
                        WHERE id > $1 ORDER BY id LIMIT $2";
    const USERS: &str = "SELECT id, email, email_key, username, username_key FROM users \
                         WHERE id > $1 ORDER BY id LIMIT $2";
    let mut found = vec![];
    for (kind, sql) in [("API key", KEYS), ("user", USERS)] {
        let mut after = 0;
        loop {
            let rows: Vec<(i64, String, String, String, String)> =
                query(&mut *snapshot, sql).bind(after).bind(BATCH).all().await?;
            let Some((last, ..)) = rows.last() else { break };
            after = *last;
            let differs = rows.iter().filter(|(_, one, one_key, other, other_key)| {
                folded(one) != *one_key || folded(other) != *other_key
            });
            found.extend(differs.map(|(id, ..)| format!("{kind} {id}")));
        }
    }
    found.truncate(usize::try_from(MAX_LISTED).unwrap_or(usize::MAX));
    Ok(found)
}

/// Checks that no id will be assigned twice.
async fn next_ids(snapshot: &mut Snapshot) -> Result<Check> {
    // The highest id in a table, and the last id that was assigned.
    macro_rules! each_table {
        ($row:ident) => {
            concat!(
                "SELECT CAST(t.name AS TEXT) FROM (",
                $row!("users"),
                " UNION ALL ",
                $row!("api_keys"),
                " UNION ALL ",
                $row!("conversations"),
                " UNION ALL ",
                $row!("messages"),
                " UNION ALL ",
                $row!("items"),
                " UNION ALL ",
                $row!("webhook_outbox"),
                " UNION ALL ",
                $row!("sessions"),
                " UNION ALL ",
                $row!("conversation_events"),
                ") t WHERE t.last > COALESCE(t.given, 0)"
            )
        };
    }
    macro_rules! of_sqlite {
        ($table:literal) => {
            concat!(
                "SELECT '",
                $table,
                "' AS name, (SELECT MAX(id) FROM ",
                $table,
                ") AS last, (SELECT seq FROM sqlite_sequence WHERE name = '",
                $table,
                "') AS given"
            )
        };
    }
    macro_rules! of_postgres {
        ($table:literal) => {
            concat!(
                "SELECT '",
                $table,
                "' AS name, (SELECT MAX(id) FROM ",
                $table,
                ") AS last, (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM ",
                $table,
                "_id_seq) AS given"
            )
        };
    }
    const SQLITE: &str = each_table!(of_sqlite);
    const POSTGRES: &str = each_table!(of_postgres);
    let sql = if snapshot.is_sqlite() { SQLITE } else { POSTGRES };
    let tables = query(snapshot, sql).all::<(String,)>().await;
    let problem = |(table,)| format!("the next row of {table} would get an id that is in use");
    Check::of("next ids", tables, problem)
}
