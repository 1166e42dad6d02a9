//! No request scans a whole table of SQLite. After each test, the check explains every new statement
//! that a request ran, with the statistics of a large database.

use octopus::core::config::DatabaseUrl;
use octopus::db::DbOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Mutex, Once};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Tables that stay small.
const SMALL: [&str; 4] = ["audit_head", "installation", "leases", "message_search_progress"];

/// Allowed scans: part of the statement, part of the step, and the reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("", "USING INDEX conversations_retired", "a partial index of the conversations being removed"),
    ("", "USING INDEX api_keys_admins", "a partial index of the keys that are counted"),
    (
        "EXISTS (SELECT 1 FROM api_key_audit_logs)",
        "SCAN api_key_audit_logs",
        "ends at the first row",
    ),
    ("c.retired_at IS NULL ORDER BY c.id LIMIT", "SCAN c", "ends at the end of the page"),
    ("AS active_api_keys", "SCAN ", "the statistics of an administrator count all rows"),
];

/// Statements of requests; true once they are checked.
static STATEMENTS: Mutex<BTreeMap<String, bool>> = Mutex::new(BTreeMap::new());

/// Records the statements of requests on SQLite, whose connections have dedicated threads.
struct StatementRecorder;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for StatementRecorder {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let is_sqlite =
            std::thread::current().name().is_some_and(|it| it.starts_with("sqlx-sqlite"));
        let scope = context.event_scope(event);
        if is_sqlite && scope.is_some_and(|mut spans| spans.any(|span| span.name() == "request")) {
            let mut text = StatementText::default();
            event.record(&mut text);
            let sql = if text.statement.is_empty() { text.summary } else { text.statement };
            STATEMENTS.lock().unwrap().entry(sql.trim().to_owned()).or_default();
        }
    }
}

/// The text of a statement. A short statement is its own summary.
#[derive(Default)]
struct StatementText {
    summary: String,
    statement: String,
}

impl Visit for StatementText {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.statement),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// Starts to record statements, once in this process.
pub fn start_recording() {
    static START: Once = Once::new();
    START.call_once(|| {
        let filter = Targets::new()
            .with_target("sqlx::query", LevelFilter::DEBUG)
            .with_target("octopus", LevelFilter::ERROR);
        tracing_subscriber::registry().with(filter).with(StatementRecorder).init();
    });
}

/// Checks the statements that were recorded since the last call, possibly by other tests that run
/// concurrently.
///
/// # Panics
/// If one of them scans a table.
pub fn check() {
    let mut statements = STATEMENTS.lock().unwrap();
    let new = statements.iter_mut().filter(|(_, is_checked)| !**is_checked);
    let new: Vec<String> = new
        .map(|(sql, is_checked)| {
            *is_checked = true;
            sql.clone()
        })
        .collect();
    drop(statements);
    if new.is_empty() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let faults = runtime.block_on(faults(&new));
    assert!(faults.is_empty(), "requests scan a table:\n\n{}", faults.join("\n\n"));
}

async fn faults(statements: &[String]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plans.db");
    let url: DatabaseUrl = format!("sqlite:///{}", path.display()).parse().unwrap();
    let options = DbOptions::new().create(true).migrate(true);
    options.open(&url).await.unwrap().db.close().await;
    let mut plans = Plans::of(&path).await;
    let mut faults = vec![];
    for sql in statements {
        // One text may hold several statements.
        for part in sql.split("; ").filter(|part| !controls_transaction(part)) {
            faults.extend(plans.fault(part).await);
        }
    }
    faults
}

fn controls_transaction(sql: &str) -> bool {
    ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA"]
        .iter()
        .any(|it| sql.starts_with(it))
}

/// A database that explains statements, and the names of its tables that grow.
struct Plans {
    connection: SqliteConnection,
    tables: Vec<String>,
}

impl Plans {
    async fn of(path: &Path) -> Self {
        const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table'";
        let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
        let mut tables: Vec<String> =
            sqlx::query_scalar(TABLES).fetch_all(&mut connection).await.unwrap();
        tables.retain(|table| !SMALL.contains(&&**table));
        Self { connection, tables }
    }

    /// Describes the table scan of `sql`, if it has one. Reading along an index up to a LIMIT
    /// without sorting does not count.
    async fn fault(&mut self, sql: &str) -> Option<String> {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan: Result<Vec<Step>, _> =
            sqlx::query_as(explain).fetch_all(&mut self.connection).await;
        let plan = plan.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let is_sorted = plan.iter().any(|step| step.detail.contains("TEMP B-TREE"));
        if sql.contains(" LIMIT ") && !is_sorted {
            return None;
        }
        let scan = plan.iter().find(|step| {
            let is_allowed = |(part, allowed, _): &(&str, &str, &str)| {
                sql.contains(part) && step.detail.contains(allowed)
            };
            let name = step.detail.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
            let scans = |name| self.is_table(sql, name) && !is_subquery(&plan, step, name);
            name.is_some_and(scans) && !ALLOWED.iter().any(is_allowed)
        })?;
        let steps: Vec<&str> = plan.iter().map(|step| &*step.detail).collect();
        Some(format!("{sql}\n    {}\nin\n    {}", scan.detail, steps.join("\n    ")))
    }

    /// Whether `name` is a table that grows, or an alias of one in `sql`.
    fn is_table(&self, sql: &str, name: &str) -> bool {
        self.tables.iter().any(|table| {
            name == table
                || sql.contains(&format!(" {table} {name} "))
                || sql.contains(&format!(" {table} AS {name} "))
        })
    }
}

/// A step of a query plan, with the id of its parent.
#[derive(sqlx::FromRow)]
struct Step {
    id: i64,
    parent: i64,
    detail: String,
}

/// Whether `step` scans the result of a subquery that has the same name as a table in it.
fn is_subquery(plan: &[Step], step: &Step, name: &str) -> bool {
    let materializes = |it: &&Step| {
        ["MATERIALIZE", "CO-ROUTINE"].iter().any(|how| it.detail == format!("{how} {name}"))
    };
    let Some(materialized) = plan.iter().find(materializes) else { return false };
    let mut above = step.parent;
    while above != 0 {
        if above == materialized.id {
            return false;
        }
        above = plan.iter().find(|it| it.id == above).map_or(0, |it| it.parent);
    }
    true
}
