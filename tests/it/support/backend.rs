//! The database of one test.

use super::postgres::Postgres;
use octopus::core::config::{Config, DatabaseUrl};
use octopus::db::{Db, DbOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The audit key of servers on Postgres.
pub const AUDIT_KEY: &str = "an audit key of the tests with 32 bytes or more";

static COUNTER: AtomicUsize = AtomicUsize::new(0);

/// A database that only one test uses, on SQLite or Postgres. Clones share it.
#[derive(Clone)]
pub struct Backend(Arc<Inner>);

struct Inner {
    /// For files of the test, including those of SQLite.
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

    /// Another database of the same kind, which the test must remove.
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

    /// The certificate of its Postgres, if this run started that.
    pub fn certificate(&self) -> Option<PathBuf> {
        self.0.postgres.as_ref()?.0.certificate()
    }

    /// The folder of this test.
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

    /// The settings that a server on it needs: the URL and, on Postgres, the audit key.
    pub async fn variables(&self) -> HashMap<String, String> {
        let mut variables = HashMap::from([("DATABASE_URL".to_owned(), self.url().await)]);
        if !self.is_sqlite() {
            variables.insert("AUDIT_KEY".to_owned(), AUDIT_KEY.to_owned());
        }
        variables
    }

    /// A configuration with its database and these variables only.
    pub async fn config(&self, variables: &[(&str, &str)]) -> Config {
        let mut all = self.variables().await;
        all.extend(variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        Config::from_variables(all).unwrap()
    }

    /// Its database, opened and migrated.
    pub async fn open(&self) -> Db {
        let url: DatabaseUrl = self.url().await.parse().unwrap();
        DbOptions::new().create(true).migrate(true).open(&url).await.unwrap().db
    }

    /// Runs `sql`, one or more statements, on a separate connection.
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

    /// Drops a Postgres database. The folder is removed when it is dropped.
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
