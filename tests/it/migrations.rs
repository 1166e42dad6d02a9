//! Opening a database: an empty one is made ready, and one that is not ours is left as it is.

use crate::support::{Backend, tests};
use octopus::core::config::DatabaseUrl;
use octopus::db::{self, Db, OpenError, query};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

tests!(
    on_both: [
        an_empty_database_gets_the_whole_schema,
        opening_again_changes_nothing,
            sixteen_starters_at_once_all_succeed,
        a_database_of_the_python_original_is_refused_and_left_as_it_is,
        a_database_with_strange_tables_is_refused_and_left_as_it_is,
        a_database_of_a_newer_octopus_is_refused_and_left_as_it_is,
        a_database_made_by_other_migrations_is_refused,
        without_auto_migrate_an_empty_database_is_still_made,
            ], on_sqlite: [
    a_database_that_is_closed_is_one_file,
    files_we_make_are_for_their_owner_alone,
    a_file_that_is_no_database_is_refused_and_left_as_it_is,
],
    once: [both_databases_have_the_same_migrations],
);

/// What the original leaves behind, as SQLAlchemy makes it.
const PYTHON: &str = "
    CREATE TABLE users (id INTEGER NOT NULL, email VARCHAR NOT NULL, username VARCHAR NOT NULL,
        hashed_password VARCHAR NOT NULL, full_name VARCHAR, PRIMARY KEY (id));
    CREATE TABLE api_keys (id INTEGER NOT NULL, key VARCHAR NOT NULL, name VARCHAR NOT NULL,
        scopes VARCHAR, is_active BOOLEAN, PRIMARY KEY (id), UNIQUE (key));
    CREATE TABLE conversations (id INTEGER NOT NULL, title VARCHAR, PRIMARY KEY (id));
    CREATE TABLE messages (id INTEGER NOT NULL, conversation_id INTEGER NOT NULL,
        role VARCHAR NOT NULL, content TEXT NOT NULL, PRIMARY KEY (id),
        FOREIGN KEY (conversation_id) REFERENCES conversations (id));
    INSERT INTO users VALUES (1, 'a@example.com', 'a', 'x', NULL);
    INSERT INTO api_keys VALUES (1, 'octopus_secret', 'Master API Key', 'admin', TRUE);
    INSERT INTO conversations VALUES (1, 'a talk');
    INSERT INTO messages VALUES (1, 1, 'user', 'hello');";

const TABLES: [&str; 19] = [
    "_sqlx_migrations",
    "api_key_audit_logs",
    "api_key_usage",
    "api_keys",
    "audit_head",
    "conversation_events",
    "conversations",
    "event_tickets",
    "expiry_notices",
    "idempotency_keys",
    "installation",
    "items",
    "leases",
    "messages",
    "participants",
    "password_resets",
    "sessions",
    "users",
    "webhook_outbox",
];

async fn open(backend: &Backend, migrate: bool) -> Result<Db, OpenError> {
    let url: DatabaseUrl = backend.url().await.parse().unwrap();
    db::open(&url, migrate).await
}

/// Opens it, and closes it again.
async fn start_and_stop(backend: &Backend, migrate: bool) {
    open(backend, migrate).await.unwrap().close().await;
}

/// Why it is refused, which it must be, and left as it is.
async fn refused(backend: &Backend) -> OpenError {
    let before = contents(backend).await;
    open(backend, false).await.expect_err("opened without AUTO_MIGRATE");
    let error = open(backend, true).await.expect_err("opened");
    assert!(contents(backend).await == before, "it was changed");
    error
}

fn files(backend: &Backend) -> Vec<String> {
    let entries = fs::read_dir(backend.folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn file(backend: &Backend) -> PathBuf {
    backend.folder().join("octopus.db")
}

/// The bytes of SQLite's file; on Postgres, the rows of every table and the names of all that is
/// in the schema.
async fn contents(backend: &Backend) -> Vec<u8> {
    const NAMES: &str = "SELECT relname::text, relkind::text FROM pg_class \
                         WHERE relnamespace = current_schema()::regnamespace ORDER BY relname";
    if backend.is_sqlite() {
        return fs::read(file(backend)).unwrap();
    }
    let mut connection = PgConnection::connect(&backend.url().await).await.unwrap();
    let names: Vec<(String, String)> =
        sqlx::query_as(NAMES).fetch_all(&mut connection).await.unwrap();
    let mut contents = vec![format!("{names:?}")];
    for (name, _) in names.iter().filter(|(_, kind)| kind == "r") {
        let sql = format!("SELECT t::text FROM \"{name}\" t ORDER BY 1");
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        contents.push(format!("{name}: {rows:?}"));
    }
    connection.close().await.unwrap();
    contents.join("\n").into_bytes()
}

async fn tables(db: &Db) -> Vec<String> {
    let sql = match db {
        Db::Sqlite { .. } => {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
             AND name NOT LIKE 'message_search%' AND name <> 'message_terms'"
        }
        Db::Postgres { .. } => {
            "SELECT table_name::text FROM information_schema.tables \
             WHERE table_schema = current_schema()"
        }
    };
    let rows: Vec<(String,)> = query(db, sql).all().await.unwrap();
    let mut names: Vec<String> = rows.into_iter().map(|(name,)| name).collect();
    names.sort();
    names
}

async fn an_empty_database_gets_the_whole_schema(backend: Backend) {
    const ROWS: &str = "SELECT (SELECT COUNT(*) FROM items), (SELECT COUNT(*) FROM installation), \
                        (SELECT COUNT(*) FROM api_keys)";
    let db = open(&backend, true).await.unwrap();
    assert_eq!(tables(&db).await, TABLES);
    let rows: (i64, i64, i64) = query(&db, ROWS).one().await.unwrap();
    assert_eq!(rows, (2, 1, 0));
}

async fn opening_again_changes_nothing(backend: Backend) {
    const APPLIED: &str = "SELECT version, description FROM _sqlx_migrations ORDER BY version";
    start_and_stop(&backend, true).await;
    backend.execute("INSERT INTO items (item_id, name) VALUES ('kept', 'Kept')").await;
    let before = contents(&backend).await;
    for migrate in [true, false] {
        let db = open(&backend, migrate).await.unwrap();
        let applied: Vec<(i64, String)> = query(&db, APPLIED).all().await.unwrap();
        assert_eq!(applied, migrations("sqlite"));
        assert_eq!(tables(&db).await, TABLES);
        db.close().await;
        assert!(contents(&backend).await == before, "it was changed");
    }
    let copies = files(&backend).into_iter().filter(|name| name.contains("before-migration"));
    assert_eq!(copies.count(), 0, "nothing was migrated");
}

async fn a_database_that_is_closed_is_one_file(backend: Backend) {
    const ITEMS: &str = "SELECT name FROM items ORDER BY id";
    for _ in 0..100 {
        let db = open(&backend, true).await.unwrap();
        let read = async || query(&db, ITEMS).all::<(String,)>().await.unwrap();
        tokio::join!(read(), read(), read(), read());
        db.close().await;
        // Who copies the file now copies everything.
        assert_eq!(files(&backend), ["octopus.db"]);
    }
}

async fn sixteen_starters_at_once_all_succeed(backend: Backend) {
    const COUNTS: &str = "SELECT (SELECT COUNT(*) FROM items), (SELECT COUNT(*) FROM installation), \
                          (SELECT COUNT(*) FROM _sqlx_migrations)";
    backend.url().await; // which creates it on Postgres
    let mut starters = JoinSet::new();
    for n in 0..16 {
        let backend = backend.clone();
        // On threads of their own, as processes are.
        starters.spawn_blocking(move || {
            Handle::current().block_on(async {
                let db = open(&backend, n % 2 == 0).await.unwrap();
                let counts: (i64, i64, i64) = query(&db, COUNTS).one().await.unwrap();
                assert_eq!(counts, (2, 1, latest()));
                db.close().await;
            });
        });
    }
    starters.join_all().await;
}

async fn a_database_of_the_python_original_is_refused_and_left_as_it_is(backend: Backend) {
    backend.execute(PYTHON).await;
    let error = refused(&backend).await;
    assert!(matches!(error, OpenError::PythonOriginal), "{error:?}");
    let sentence = error.to_string();
    assert!(
        sentence.contains("Python original") && sentence.contains("DATABASE_URL"),
        "{sentence}"
    );
    // Its secrets are not in the sentence.
    assert!(!sentence.contains("octopus_secret"), "{sentence}");
}

async fn a_database_with_strange_tables_is_refused_and_left_as_it_is(backend: Backend) {
    backend.execute("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1)").await;
    let error = refused(&backend).await;
    assert!(matches!(error, OpenError::Strange(_)), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("orders") && sentence.contains("DATABASE_URL"), "{sentence}");
}

async fn a_database_of_a_newer_octopus_is_refused_and_left_as_it_is(backend: Backend) {
    const LATER: &str = "INSERT INTO _sqlx_migrations \
        (version, description, success, checksum, execution_time) \
        SELECT 9999, 'later', success, checksum, execution_time FROM _sqlx_migrations \
        WHERE version = 1";
    start_and_stop(&backend, true).await;
    backend.execute(LATER).await;
    let error = refused(&backend).await;
    assert!(matches!(error, OpenError::Newer), "{error:?}");
    assert!(error.to_string().contains("newer Octopus"), "{error}");
}

async fn a_database_made_by_other_migrations_is_refused(backend: Backend) {
    start_and_stop(&backend, true).await;
    // As another application that uses sqlx leaves it, whose first migration has this number too.
    let sum = if backend.is_sqlite() { "x'00ff'" } else { "'\\x00ff'" };
    backend.execute(format!("UPDATE _sqlx_migrations SET checksum = {sum}")).await;
    refused(&backend).await;
}

async fn without_auto_migrate_an_empty_database_is_still_made(backend: Backend) {
    let db = open(&backend, false).await.unwrap();
    assert_eq!(tables(&db).await, TABLES);
    db.close().await;
    start_and_stop(&backend, false).await;
}

async fn files_we_make_are_for_their_owner_alone(backend: Backend) {
    let db = open(&backend, true).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    query(&mut tx, "DELETE FROM items").execute().await.unwrap();
    tx.commit().await.unwrap();
    for name in ["octopus.db", "octopus.db-wal", "octopus.db-shm"] {
        let mode = fs::metadata(backend.folder().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

async fn a_file_that_is_no_database_is_refused_and_left_as_it_is(backend: Backend) {
    fs::write(file(&backend), "Dear diary, ".repeat(1000)).unwrap();
    let error = refused(&backend).await;
    assert!(error.to_string().contains("not a database"), "{error}");
    let nowhere: DatabaseUrl =
        format!("sqlite:///{}/no/such/folder/x.db", backend.folder().display()).parse().unwrap();
    let error = db::open(&nowhere, true).await.expect_err("opened");
    assert!(error.to_string().contains("no/such/folder/x.db"), "{error}");
}

/// The number and the name of each migration of a kind of database, in their order.
fn migrations(kind: &str) -> Vec<(i64, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(kind);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let named = |file: OsString| {
        let file = file.into_string().unwrap();
        let (number, name) = file.trim_end_matches(".sql").split_once('_').unwrap();
        (number.parse().unwrap(), name.replace('_', " "))
    };
    let mut all: Vec<_> = files.map(named).collect();
    all.sort();
    all
}

/// The number of the last migration.
fn latest() -> i64 {
    migrations("sqlite").last().unwrap().0
}

fn both_databases_have_the_same_migrations() {
    let sqlite = migrations("sqlite");
    assert!(!sqlite.is_empty());
    assert_eq!(sqlite, migrations("postgres"));
}
