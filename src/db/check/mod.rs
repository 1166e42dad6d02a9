//! Looks whether a database is in order, and changes nothing in it.

mod search;

use super::{Db, Snapshot, query};
use crate::core::text::folded;
use serde::Serialize;
use sqlx::Result;
use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteError;

/// Rows named of those that break one rule.
const NAMED: i64 = 10;
/// Names compared at a time.
const BATCH: i64 = 1000;

/// What was looked at, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What is wrong, a sentence or the name of a row each; nothing if all is well.
    pub problems: Vec<String>,
}

/// A rule of the schema's that no constraint can keep: what is stored twice must agree.
struct Rule {
    name: &'static str,
    /// What a row that breaks it is.
    thing: &'static str,
    /// Ids of at most `$1` rows that break it.
    sql: &'static str,
}

/// Both databases' rules.
const RULES: [Rule; 6] = [
    // Those that come or go in several transactions are left out.
    Rule {
        name: "numbers of messages",
        thing: "conversation",
        sql: "SELECT c.id FROM conversations c WHERE c.retired_at IS NULL AND (c.last_seq <> \
              (SELECT CAST(COUNT(*) AS BIGINT) FROM messages m WHERE m.conversation_id = c.id) OR \
              c.last_seq <> COALESCE((SELECT MAX(m.seq) FROM messages m \
              WHERE m.conversation_id = c.id), 0)) ORDER BY c.id LIMIT $1",
    },
    Rule {
        name: "times of conversations",
        thing: "conversation",
        sql: "SELECT c.id FROM conversations c WHERE c.retired_at IS NULL AND \
              ((c.last_seq = 0 AND c.active_at <> c.created_at) OR EXISTS \
              (SELECT 1 FROM messages m WHERE m.conversation_id = c.id AND m.seq = c.last_seq \
              AND m.created_at <> c.active_at)) ORDER BY c.id LIMIT $1",
    },
    Rule {
        name: "names of conversations",
        thing: "conversation",
        sql: "SELECT c.id FROM conversations c WHERE c.retired_at IS NULL \
              AND c.external_id IS NULL ORDER BY c.id LIMIT $1",
    },
    Rule {
        name: "deleted messages",
        thing: "message",
        sql: "SELECT m.id FROM messages m WHERE m.deleted_at IS NOT NULL \
              AND (m.content <> '' OR m.metadata IS NOT NULL) ORDER BY m.id LIMIT $1",
    },
    Rule {
        name: "rotations of keys",
        thing: "API key",
        sql: "SELECT k.id FROM api_keys k WHERE EXISTS (SELECT 1 FROM api_keys o \
              WHERE (o.id = k.rotated_to_id AND COALESCE(o.rotated_from_id, 0) <> k.id) \
              OR (o.id = k.rotated_from_id AND COALESCE(o.rotated_to_id, 0) <> k.id)) \
              ORDER BY k.id LIMIT $1",
    },
    Rule {
        name: "the row of the installation",
        thing: "installation",
        sql: "SELECT w.id FROM (SELECT CAST(1 AS BIGINT) AS id) w \
              WHERE (SELECT CAST(COUNT(*) AS BIGINT) FROM installation) <> 1 LIMIT $1",
    },
];

impl Check {
    /// With a problem for each of `rows`; a file that is too broken to be asked is one, too.
    fn of<R>(
        name: &'static str,
        rows: Result<Vec<R>>,
        problem: impl Fn(R) -> String,
    ) -> Result<Self> {
        let problems = match rows {
            Err(sqlx::Error::Database(error)) if is_corrupt(&*error) => vec![error.to_string()],
            rows => rows?.into_iter().map(problem).collect(),
        };
        Ok(Self { name, problems })
    }
}

/// Whether SQLite found its file broken: SQLITE_CORRUPT and what is more exact than that.
fn is_corrupt(error: &dyn DatabaseError) -> bool {
    const CORRUPT: i32 = 11;
    let is_sqlite = error.try_downcast_ref::<SqliteError>().is_some();
    let code = error.code().and_then(|code| code.parse().ok());
    is_sqlite && code.is_some_and(|code: i32| code & 0xff == CORRUPT)
}

/// Checks everything that can be checked without the audit key.
pub async fn check(db: &Db) -> Result<Vec<Check>> {
    let mut snapshot = db.snapshot().await?;
    let mut checks = if snapshot.is_sqlite() {
        of_file(&mut snapshot).await?
    } else {
        vec![usable(&mut snapshot).await?]
    };
    for rule in &RULES {
        let rows = query(&mut snapshot, rule.sql).bind(NAMED).all::<(i64,)>().await;
        checks.push(Check::of(rule.name, rows, |(id,)| format!("{} {id}", rule.thing))?);
    }
    let misnamed = misnamed(&mut snapshot).await;
    checks.push(Check::of("names of keys and users", misnamed, |text| text)?);
    checks.push(ids(&mut snapshot).await?);
    if let Db::Sqlite { read, .. } = db {
        checks.push(search::check(&read.options()).await?);
    }
    Ok(checks)
}

/// Checks of an SQLite file what needs no knowledge of its schema.
pub async fn check_file(db: &Db) -> Result<Vec<Check>> {
    of_file(&mut db.snapshot().await?).await
}

/// What SQLite says of its file: its structure, and rows that refer to rows.
async fn of_file(snapshot: &mut Snapshot) -> Result<Vec<Check>> {
    const LOST: &str = "SELECT \"table\", rowid, parent FROM pragma_foreign_key_check LIMIT 10";
    let said = query(&mut *snapshot, "PRAGMA integrity_check(10)").all::<(String,)>().await;
    let mut integrity = Check::of("integrity of the file", said, |(text,)| text)?;
    integrity.problems.retain(|problem| problem != "ok");
    let lost = query(snapshot, LOST).all().await;
    let problem = |(table, row, parent): (String, Option<i64>, String)| match row {
        Some(row) => format!("row {row} of {table} refers to a row of {parent} that is not there"),
        None => format!("a row of {table} refers to a row of {parent} that is not there"),
    };
    Ok(vec![integrity, Check::of("foreign keys", lost, problem)?])
}

/// Constraints and indexes of Postgres that it does not keep: it says nothing of them by itself.
async fn usable(snapshot: &mut Snapshot) -> Result<Check> {
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
    let problem = |(name,)| format!("{name} is not in force");
    Check::of("constraints, indexes and triggers", found, problem)
}

/// Keys and users that would not be found by their names, as these are compared without regard to
/// case.
async fn misnamed(snapshot: &mut Snapshot) -> Result<Vec<String>> {
    const KEYS: &str = "SELECT id, name, name_key, '', '' FROM api_keys \
                        WHERE id > $1 ORDER BY id LIMIT $2";
    const USERS: &str = "SELECT id, email, email_key, username, username_key FROM users \
                         WHERE id > $1 ORDER BY id LIMIT $2";
    let mut found = vec![];
    for (thing, sql) in [("API key", KEYS), ("user", USERS)] {
        let mut after = 0;
        loop {
            let rows: Vec<(i64, String, String, String, String)> =
                query(&mut *snapshot, sql).bind(after).bind(BATCH).all().await?;
            let Some((last, ..)) = rows.last() else { break };
            after = *last;
            let differs = rows.iter().filter(|(_, one, one_key, other, other_key)| {
                folded(one) != *one_key || folded(other) != *other_key
            });
            found.extend(differs.map(|(id, ..)| format!("{thing} {id}")));
        }
    }
    found.truncate(usize::try_from(NAMED).unwrap_or(usize::MAX));
    Ok(found)
}

/// That no id will be used a second time.
async fn ids(snapshot: &mut Snapshot) -> Result<Check> {
    // The last id of a table, and the last one that was given.
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
    let problem = |(table,)| format!("the next row of {table} would get an id that is taken");
    Check::of("next ids", tables, problem)
}
