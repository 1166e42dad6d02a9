//! A database for one test.

use super::postgres::Postgres;
use octopus::core::config::{Config, DatabaseUrl};
use octopus::db::{self, Db};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// What servers on Postgres make the audit chain with.
pub const AUDIT_KEY: &str = "an audit key of the tests with 32 bytes or more";

static COUNTER: AtomicUsize = AtomicUsize::new(0);

/// A kind of database, and one of that kind that nobody else uses. Clones are the same one.
#[derive(Clone)]
pub struct Backend(Arc<Inner>);

struct Inner {
    /// For files of the test, SQLite's among them.
    folder: TempDir,
    postgres: Option<(Arc<Postgres>, String)>,
    created: OnceCell<()>,
}

impl Backend {
    pub fn sqlite() -> Self {
        Self::new(None)
    }

    pub fn postgres(server: Arc<Postgres>) -> Self {
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self::new(Some((server, format!("octopus_test_{}_{n}", std::process::id()))))
    }

    fn new(postgres: Option<(Arc<Postgres>, String)>) -> Self {
        let folder = tempfile::Builder::new().prefix("octopus-test-").tempdir().unwrap();
        Self(Arc::new(Inner { folder, postgres, created: OnceCell::new() }))
    }

    /// Another database of the same kind, to be removed by the test.
    pub fn another(&self) -> Self {
        match &self.0.postgres {
            Some((server, _)) => Self::postgres(server.clone()),
            None => Self::sqlite(),
        }
    }

    pub fn is_sqlite(&self) -> bool {
        self.0.postgres.is_none()
    }

    /// `sqlite` or `postgres`.
    pub fn kind(&self) -> &'static str {
        if self.is_sqlite() { "sqlite" } else { "postgres" }
    }

    /// The certificate of its Postgres, where that is one of ours.
    pub fn certificate(&self) -> Option<PathBuf> {
        self.0.postgres.as_ref()?.0.certificate()
    }

    /// A folder of this test's own.
    pub fn folder(&self) -> &std::path::Path {
        self.0.folder.path()
    }

    /// The `DATABASE_URL` of its database, which is empty at first.
    pub async fn url(&self) -> String {
        let Some((server, name)) = &self.0.postgres else {
            return format!("sqlite:///{}/octopus.db", self.folder().display());
        };
        let base = server.url();
        self.0.created.get_or_init(|| execute(&base, format!("CREATE DATABASE {name}"))).await;
        let (front, query) =
            base.split_once('?').map_or((&*base, String::new()), |(f, q)| (f, format!("?{q}")));
        let (front, _) = front.rsplit_once('/').expect("a URL with a database");
        format!("{front}/{name}{query}")
    }

    /// What every server on it must be told: where it is and, on Postgres, the key of the audit trail.
    pub async fn variables(&self) -> HashMap<String, String> {
        let mut variables = HashMap::from([("DATABASE_URL".to_owned(), self.url().await)]);
        if !self.is_sqlite() {
            variables.insert("AUDIT_KEY".to_owned(), AUDIT_KEY.to_owned());
        }
        variables
    }

    /// A configuration with its database and these variables alone.
    pub async fn config(&self, variables: &[(&str, &str)]) -> Config {
        let mut all = self.variables().await;
        all.extend(variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        Config::from_variables(all).unwrap()
    }

    /// Its database, opened and migrated.
    pub async fn open(&self) -> Db {
        let url: DatabaseUrl = self.url().await.parse().unwrap();
        db::open(&url, true).await.unwrap()
    }

    /// Runs `sql` as it is, which may be several statements, behind the server's back.
    pub async fn execute(&self, sql: impl Into<String>) {
        let (url, sql) = (self.url().await, sql.into());
        if self.is_sqlite() {
            let path = url.trim_start_matches("sqlite:///");
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let mut connection =
                options.create_if_missing(true).connect().await.expect("the file opens");
            connection.execute(AssertSqlSafe(sql)).await.expect("the statement runs");
            connection.close().await.expect("the file closes");
        } else {
            execute(&url, sql).await;
        }
    }

    /// Removes a Postgres database; files go by themselves.
    pub async fn remove(&self) {
        if let Some((server, name)) = &self.0.postgres
            && self.0.created.initialized()
        {
            execute(&server.url(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        }
    }
}

async fn execute(url: &str, sql: String) {
    let mut connection = sqlx::PgConnection::connect(url).await.expect("Postgres answers");
    connection.execute(AssertSqlSafe(sql)).await.expect("the statement runs");
    connection.close().await.expect("the connection closes");
}
