//! The database of one test.

use super::postgres::Postgres;
use octopus::core::config::{Config, DatabaseUrl};
use octopus::db::{Db, DbOptions};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    /// Whether the database has no schema at first.
    is_empty: AtomicBool,
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
        Self(Arc::new(Inner {
            folder,
            postgres,
            created: OnceCell::new(),
            is_empty: AtomicBool::new(false),
        }))
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

    /// Makes its database start without a schema. Otherwise a Postgres database starts with the
    /// current one, because a copy takes less time than all migrations.
    pub fn start_empty(&self) {
        self.0.is_empty.store(true, Ordering::Relaxed);
    }

    /// The `DATABASE_URL` of its database, which has no rows at first.
    pub async fn url(&self) -> String {
        let Some((server, name)) = &self.0.postgres else {
            return format!("sqlite:///{}/octopus.db", self.folder().display());
        };
        let base = server.url();
        let create = async || {
            let sql = if self.0.is_empty.load(Ordering::Relaxed) {
                format!("CREATE DATABASE {name}")
            } else {
                format!("CREATE DATABASE {name} TEMPLATE {}", template(&base).await)
            };
            execute(&base, sql).await;
        };
        self.0.created.get_or_init(create).await;
        url_of(&base, name)
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

    /// Inserts `count` messages into conversation 1 with SQL, bypassing the server.
    pub async fn fill_conversation(&self, count: usize, content: &str) {
        let sql = format!(
            "INSERT INTO messages (conversation_id, seq, role, content, created_at) \
             WITH RECURSIVE series (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {count}) \
             SELECT 1, n, 'user', '{content}', '2026-01-01T00:00:00+00:00' FROM series; \
             UPDATE conversations SET last_seq = {count} WHERE id = 1"
        );
        self.execute(sql).await;
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

/// The URL of database `name` on the server of `base`.
fn url_of(base: &str, name: &str) -> String {
    let (front, query) =
        base.split_once('?').map_or((base, String::new()), |(f, q)| (f, format!("?{q}")));
    let (front, _) = front.rsplit_once('/').expect("a URL with a database");
    format!("{front}/{name}{query}")
}

/// The name of a database with the current schema on the server of `base`. Creates it if it does
/// not exist.
async fn template(base: &str) -> &'static str {
    static NAME: OnceCell<String> = OnceCell::const_new();
    let create = async || {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        let mut hash = Sha256::new();
        for file in &files {
            hash.update(fs::read(file).unwrap());
        }
        let name = format!("octopus_schema_{}", &hex::encode(hash.finalize())[..16]);
        // Other test processes may create it at the same time.
        let mut connection =
            sqlx_postgres::PgConnection::connect(base).await.expect("Postgres answers");
        connection.execute("SELECT pg_advisory_lock(1)").await.unwrap();
        let is_there =
            "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate)";
        let is_there = sqlx::query_scalar::<_, bool>(is_there).bind(&name);
        if !is_there.fetch_one(&mut connection).await.unwrap() {
            execute(base, format!("DROP DATABASE IF EXISTS {name}")).await;
            execute(base, format!("CREATE DATABASE {name}")).await;
            let url: DatabaseUrl = url_of(base, &name).parse().unwrap();
            DbOptions::new().create(true).migrate(true).open(&url).await.unwrap().db.close().await;
            execute(base, format!("ALTER DATABASE {name} IS_TEMPLATE true")).await;
        }
        connection.close().await.unwrap();
        name
    };
    NAME.get_or_init(create).await
}

async fn execute(url: &str, sql: String) {
    let mut connection = sqlx_postgres::PgConnection::connect(url).await.expect("Postgres answers");
    connection.execute(AssertSqlSafe(sql)).await.expect("the statement runs");
    connection.close().await.expect("the connection closes");
}
