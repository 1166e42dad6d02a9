//! No request walks through a whole table of SQLite. What is looked at is every statement that a
//! request ran in any test of this process, once all of them have ended, with the statistics of a large
//! database.

use octopus::core::config::DatabaseUrl;
use octopus::db;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
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

/// Steps that may be: what is in the statement, in the step, and why.
const MAY: &[(&str, &str, &str)] = &[
    ("", "USING INDEX conversations_retired", "it has those alone that are being removed"),
    ("", "USING INDEX api_keys_admins", "it has those alone that are counted"),
    (
        "EXISTS (SELECT 1 FROM api_key_audit_logs)",
        "SCAN api_key_audit_logs",
        "ends at the first row",
    ),
    ("c.retired_at IS NULL ORDER BY c.id LIMIT", "SCAN c", "ends at the end of the page"),
    ("AS active_api_keys", "SCAN ", "the statistics of an administrator count what there is"),
];

static STATEMENTS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Hears what requests run on SQLite, whose connections have threads of their own.
struct Statements;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Statements {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let is_sqlite =
            std::thread::current().name().is_some_and(|it| it.starts_with("sqlx-sqlite"));
        let scope = context.event_scope(event);
        if is_sqlite && scope.is_some_and(|mut spans| spans.any(|span| span.name() == "request")) {
            let mut text = Text::default();
            event.record(&mut text);
            let sql = if text.statement.is_empty() { text.summary } else { text.statement };
            STATEMENTS.lock().unwrap().insert(sql.trim().to_owned());
        }
    }
}

/// The text of a statement: a short one is its own summary.
#[derive(Default)]
struct Text {
    summary: String,
    statement: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.statement),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// Begins to listen.
pub fn listen() {
    let heard = Targets::new()
        .with_target("sqlx::query", LevelFilter::DEBUG)
        .with_target("octopus", LevelFilter::ERROR);
    tracing_subscriber::registry().with(heard).with(Statements).init();
}

/// Says what walks through a table of what was heard, if anything does.
pub fn are_good() -> bool {
    let heard = STATEMENTS.lock().unwrap().clone();
    if heard.is_empty() {
        return true;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let faults = runtime.block_on(faults(&heard));
    // Not println!: this must be seen whatever a harness captures.
    let mut out = std::io::stdout();
    let _ = writeln!(
        out,
        "of {} statements of requests, {} walk through a table",
        heard.len(),
        faults.len()
    );
    for fault in &faults {
        let _ = writeln!(out, "\n{fault}");
    }
    faults.is_empty()
}

async fn faults(heard: &BTreeSet<String>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plans.db");
    let url: DatabaseUrl = format!("sqlite:///{}", path.display()).parse().unwrap();
    db::open(&url, true).await.unwrap().close().await;
    let mut plans = Plans::of(&path).await;
    let mut faults = vec![];
    for sql in heard {
        // Several statements of one text.
        for part in sql.split("; ").filter(|part| !is_of_transactions(part)) {
            faults.extend(plans.fault(part).await);
        }
    }
    faults
}

fn is_of_transactions(sql: &str) -> bool {
    ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA"]
        .iter()
        .any(|it| sql.starts_with(it))
}

/// A database whose plans are asked for, and the tables in it that grow.
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

    /// Says how `sql` walks through a table, if it does. Reading along an index until there is a page
    /// is none: there is a LIMIT, and nothing is sorted.
    async fn fault(&mut self, sql: &str) -> Option<String> {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan: Result<Vec<Step>, _> =
            sqlx::query_as(explain).fetch_all(&mut self.connection).await;
        let plan = plan.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let is_sorted = plan.iter().any(|step| step.detail.contains("TEMP B-TREE"));
        if sql.contains(" LIMIT ") && !is_sorted {
            return None;
        }
        let walk = plan.iter().find(|step| {
            let may = |(part, walk, _): &(&str, &str, &str)| {
                sql.contains(part) && step.detail.contains(walk)
            };
            let name = step.detail.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
            let walks = |name| self.is_table(sql, name) && !is_subquery(&plan, step, name);
            name.is_some_and(walks) && !MAY.iter().any(may)
        })?;
        let steps: Vec<&str> = plan.iter().map(|step| &*step.detail).collect();
        Some(format!("{sql}\n    {}\nin\n    {}", walk.detail, steps.join("\n    ")))
    }

    /// Whether `name`, a table's or the one that it has in `sql`, is one that grows.
    fn is_table(&self, sql: &str, name: &str) -> bool {
        self.tables.iter().any(|table| {
            name == table
                || sql.contains(&format!(" {table} {name} "))
                || sql.contains(&format!(" {table} AS {name} "))
        })
    }
}

/// A line of a plan, and the line that it belongs to.
#[derive(sqlx::FromRow)]
struct Step {
    id: i64,
    parent: i64,
    detail: String,
}

/// Whether `step` walks through what a part of the statement found, which has a name that a table in
/// that part has, too.
fn is_subquery(plan: &[Step], step: &Step, name: &str) -> bool {
    let makes = |it: &&Step| {
        ["MATERIALIZE", "CO-ROUTINE"].iter().any(|how| it.detail == format!("{how} {name}"))
    };
    let Some(made) = plan.iter().find(makes) else { return false };
    let mut above = step.parent;
    while above != 0 {
        if above == made.id {
            return false;
        }
        above = plan.iter().find(|it| it.id == above).map_or(0, |it| it.parent);
    }
    true
}
