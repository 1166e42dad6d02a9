//! Opening a database: an empty one is migrated, and a foreign one is refused and left unchanged.

mod tables;

use crate::support::{Backend, TestApp};
use octopus::core::config::DatabaseUrl;
use octopus::db::{Db, DbOptions, OpenError, query};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use sqlx_postgres::PgConnection;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// A database of the FastAPI original, as SQLAlchemy creates it.
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

/// A migration of a later version.
const LATER: &str = "INSERT INTO _sqlx_migrations \
    (version, description, success, checksum, execution_time) \
    SELECT 9999, 'later', success, checksum, execution_time FROM _sqlx_migrations \
    WHERE version = 1";

async fn open(backend: &Backend, migrate: bool) -> Result<Db, OpenError> {
    let url: DatabaseUrl = backend.url().await.parse().unwrap();
    let options = DbOptions::new().create(true).migrate(migrate);
    options.open(&url).await.map(|opened| opened.db)
}

/// Opens the database and closes it again.
async fn start_and_stop(backend: &Backend, migrate: bool) {
    open(backend, migrate).await.unwrap().close().await;
}

/// Asserts that the database is refused and left unchanged; returns the error.
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

/// The bytes of SQLite's file; on Postgres, all rows and the names of all objects in the schema.
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

#[apply(on_both!)]
async fn an_empty_database_gets_the_whole_schema(backend: Backend) {
    const ROWS: &str = "SELECT (SELECT COUNT(*) FROM installation), (SELECT COUNT(*) FROM users), \
                        (SELECT COUNT(*) FROM api_keys)";
    let db = open(&backend, true).await.unwrap();
    assert_eq!(tables::of(&db).await, tables::of_migrations(backend.kind()));
    let rows: (i64, i64, i64) = query(&db, ROWS).one().await.unwrap();
    assert_eq!(rows, (1, 0, 0));
}

#[apply(on_both!)]
async fn reopening_changes_nothing(backend: Backend) {
    const APPLIED: &str = "SELECT version, description FROM _sqlx_migrations ORDER BY version";
    start_and_stop(&backend, true).await;
    backend
        .execute(
            "INSERT INTO conversations (title, created_at, updated_at) \
             VALUES ('kept', '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00')",
        )
        .await;
    let before = contents(&backend).await;
    for migrate in [true, false] {
        let db = open(&backend, migrate).await.unwrap();
        let applied: Vec<(i64, String)> = query(&db, APPLIED).all().await.unwrap();
        assert_eq!(applied, migrations("sqlite"));
        assert_eq!(tables::of(&db).await, tables::of_migrations(backend.kind()));
        db.close().await;
        assert!(contents(&backend).await == before, "it was changed");
    }
    let copies = files(&backend).into_iter().filter(|name| name.contains("before-migration"));
    assert_eq!(copies.count(), 0, "nothing was migrated");
}

/// Cargo reads `.cargo/config.toml` only in the current folder and those above it.
#[apply(on_sqlite!)]
async fn sqlite_is_built_with_the_configured_options(backend: Backend) {
    let db = open(&backend, true).await.unwrap();
    let options: Vec<(String,)> = query(&db, "PRAGMA compile_options").all().await.unwrap();
    let has = |wanted: &str| options.iter().any(|(option,)| option == wanted);
    assert!(has("ENABLE_QPSG") && has("DEFAULT_MEMSTATUS=0"), "{options:?}");
    assert!(!has("ENABLE_STAT4") && !has("ENABLE_MEMORY_MANAGEMENT"), "{options:?}");
    db.close().await;
}

#[apply(on_sqlite!)]
async fn table_statistics_of_sqlite_are_deleted_at_the_next_start(backend: Backend) {
    const LEARNED: &str = "SELECT COUNT(*) FROM sqlite_stat1";
    start_and_stop(&backend, true).await;
    backend.execute("ANALYZE").await;
    start_and_stop(&backend, true).await;
    let url: DatabaseUrl = backend.url().await.parse().unwrap();
    let db = DbOptions::new().open(&url).await.unwrap().db;
    let (rows,): (i64,) = query(&db, LEARNED).one().await.unwrap();
    assert_eq!(rows, 0);
    db.close().await;
}

#[apply(on_sqlite!)]
async fn a_database_that_is_closed_is_one_file(backend: Backend) {
    const USERNAMES: &str = "SELECT username FROM users ORDER BY id";
    for _ in 0..100 {
        let db = open(&backend, true).await.unwrap();
        let read = async || query(&db, USERNAMES).all::<(String,)>().await.unwrap();
        tokio::join!(read(), read(), read(), read());
        db.close().await;
        // A copy of the file now holds all data.
        assert_eq!(files(&backend), ["octopus.db"]);
    }
}

#[apply(on_both!)]
async fn sixteen_concurrent_starts_all_succeed(backend: Backend) {
    const COUNTS: &str = "SELECT (SELECT COUNT(*) FROM installation), \
                          (SELECT COUNT(*) FROM _sqlx_migrations)";
    backend.url().await; // which creates it on Postgres
    let mut starters = JoinSet::new();
    for n in 0..16 {
        let backend = backend.clone();
        // On separate threads, as separate processes would be.
        starters.spawn_blocking(move || {
            Handle::current().block_on(async {
                let db = open(&backend, n % 2 == 0).await.unwrap();
                let counts: (i64, i64) = query(&db, COUNTS).one().await.unwrap();
                assert_eq!(counts, (1, migration_count()));
                db.close().await;
            });
        });
    }
    starters.join_all().await;
}

#[apply(on_both!)]
async fn a_database_of_the_python_original_is_refused_and_left_as_it_is(backend: Backend) {
    backend.start_empty();
    backend.execute(PYTHON).await;
    let error = refused(&backend).await;
    assert!(matches!(error, OpenError::FastApiDatabase), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("FastAPI app") && sentence.contains("DATABASE_URL"), "{sentence}");
    // The error does not show its secrets.
    assert!(!sentence.contains("octopus_secret"), "{sentence}");
}

#[apply(on_both!)]
async fn a_database_with_strange_tables_is_refused_and_left_as_it_is(backend: Backend) {
    backend.start_empty();
    backend.execute("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1)").await;
    let error = refused(&backend).await;
    assert!(matches!(error, OpenError::ForeignTables(_)), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("orders") && sentence.contains("DATABASE_URL"), "{sentence}");
}

#[apply(on_both!)]
async fn a_database_of_a_newer_octopus_is_refused_and_left_as_it_is(backend: Backend) {
    backend.start_empty();
    start_and_stop(&backend, true).await;
    backend.execute(LATER).await;
    backend.execute("UPDATE installation SET readable_from = 9999").await;
    let error = refused(&backend).await;
    assert!(matches!(error, OpenError::Newer), "{error:?}");
    assert!(error.to_string().contains("newer Octopus"), "{error}");
}

/// The version before an upgrade keeps working after it.
#[apply(on_both!)]
async fn a_newer_database_that_stays_readable_is_used(backend: Backend) {
    start_and_stop(&backend, true).await;
    backend.execute(LATER).await;
    let change =
        "CREATE TABLE later (id BIGINT); ALTER TABLE conversations ADD COLUMN later INTEGER";
    backend.execute(change).await;
    for migrate in [true, false] {
        let db = open(&backend, migrate).await.unwrap();
        let (latest,): (i64,) =
            query(&db, "SELECT MAX(version) FROM _sqlx_migrations").one().await.unwrap();
        assert_eq!(latest, 9999);
        db.close().await;
    }
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.conversation(&admin, &[app.user("ada").await]).await;
    backend.execute("UPDATE installation SET readable_from = 9999").await;
    assert!(matches!(open(&backend, true).await, Err(OpenError::Newer)));
}

/// From the fourth migration on, the previous version can use the new schema unless the migration
/// declares otherwise: no table or column is removed, and no new column needs a value.
#[apply(on_both!)]
async fn a_migration_that_removes_columns_sets_readable_from(backend: Backend) {
    for (last, _) in migrations("sqlite").into_iter().filter(|(number, _)| *number >= 4) {
        let backend = backend.another();
        migrate_to(&backend, last - 1).await;
        let before = columns(&backend).await;
        migrate_to(&backend, last).await;
        let after = columns(&backend).await;
        let db = backend.open().await;
        let (readable_from,): (i64,) =
            query(&db, "SELECT readable_from FROM installation").one().await.unwrap();
        db.close().await;
        let removed: Vec<_> =
            before.iter().filter(|(name, _)| !after.contains_key(*name)).collect();
        let table = |name: &str| name.split('.').next().unwrap().to_owned();
        let known: Vec<String> = before.keys().map(|name| table(name)).collect();
        let required: Vec<_> = after
            .iter()
            .filter(|(name, wants)| {
                **wants && !before.contains_key(*name) && known.contains(&table(name))
            })
            .collect();
        assert!(
            readable_from == last || (removed.is_empty() && required.is_empty()),
            "migration {last} must set installation.readable_from: {removed:?} {required:?}"
        );
        backend.remove().await;
    }
}

/// Migrates an empty or older database to migration `last`.
async fn migrate_to(backend: &Backend, last: i64) {
    let kind = if backend.is_sqlite() { "sqlite" } else { "postgres" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(kind);
    let mut migrator = Migrator::new(folder).await.unwrap();
    migrator.migrations.to_mut().retain(|migration| migration.version <= last);
    backend.start_empty();
    let url = backend.url().await;
    if backend.is_sqlite() {
        let options = SqliteConnectOptions::new().filename(file(backend)).create_if_missing(true);
        let mut connection = options.foreign_keys(false).connect().await.unwrap();
        migrator.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        migrator.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// Every column as `table.column`, and whether an INSERT must give it a value.
async fn columns(backend: &Backend) -> BTreeMap<String, bool> {
    const SQLITE: &str = "SELECT t.name || '.' || c.name, c.\"notnull\" AND c.dflt_value IS NULL AND c.pk = 0 \
        FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'";
    const POSTGRES: &str = "SELECT table_name || '.' || column_name, \
        is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO' \
        FROM information_schema.columns WHERE table_schema = current_schema()";
    let rows: Vec<(String, bool)> = if backend.is_sqlite() {
        let options = SqliteConnectOptions::new().filename(file(backend));
        let mut connection = options.connect().await.unwrap();
        sqlx::query_as(SQLITE).fetch_all(&mut connection).await.unwrap()
    } else {
        let mut connection = PgConnection::connect(&backend.url().await).await.unwrap();
        sqlx::query_as(POSTGRES).fetch_all(&mut connection).await.unwrap()
    };
    rows.into_iter().collect()
}

#[apply(on_both!)]
async fn a_database_made_by_other_migrations_is_refused(backend: Backend) {
    start_and_stop(&backend, true).await;
    // Another application that uses sqlx may have a first migration with the same number.
    let sum = if backend.is_sqlite() { "x'00ff'" } else { "'\\x00ff'" };
    backend.execute(format!("UPDATE _sqlx_migrations SET checksum = {sum}")).await;
    refused(&backend).await;
}

#[apply(on_both!)]
async fn without_auto_migrate_an_empty_database_is_still_migrated(backend: Backend) {
    let db = open(&backend, false).await.unwrap();
    assert_eq!(tables::of(&db).await, tables::of_migrations(backend.kind()));
    db.close().await;
    start_and_stop(&backend, false).await;
}

#[apply(on_sqlite!)]
async fn created_files_are_readable_only_by_their_owner(backend: Backend) {
    let db = open(&backend, true).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    query(&mut tx, "UPDATE installation SET version = version + 1").execute().await.unwrap();
    tx.commit().await.unwrap();
    for name in ["octopus.db", "octopus.db-wal", "octopus.db-shm"] {
        let mode = fs::metadata(backend.folder().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[apply(on_sqlite!)]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is(backend: Backend) {
    backend.start_empty();
    fs::write(file(&backend), "Dear diary, ".repeat(1000)).unwrap();
    let error = refused(&backend).await;
    assert!(error.to_string().contains("is not an SQLite database"), "{error}");
    let nowhere: DatabaseUrl =
        format!("sqlite:///{}/no/such/folder/x.db", backend.folder().display()).parse().unwrap();
    let options = DbOptions::new().create(true).migrate(true);
    let error = options.open(&nowhere).await.expect_err("opened");
    assert!(error.to_string().contains("no/such/folder/x.db"), "{error}");
}

/// State after a process is killed while SQLite's write-ahead log is not in use: at the first
/// start, at the first start after a restore, and during a restore.
#[apply(on_sqlite!)]
async fn an_interrupted_write_is_rolled_back_by_the_next_start(backend: Backend) {
    start_and_stop(&backend, true).await;
    let options = SqliteConnectOptions::new().filename(file(&backend));
    let mut connection = options.connect().await.unwrap();
    // More than the page cache holds: the file is written before the commit, and the journal before
    // that.
    let half = "PRAGMA journal_mode = DELETE; PRAGMA cache_size = 1; BEGIN; \
        UPDATE installation SET version = -1; CREATE TABLE half AS WITH RECURSIVE n (i) AS \
        (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT randomblob(1000) FROM n";
    sqlx::raw_sql(half).execute(&mut connection).await.unwrap();
    let cut_off = backend.another();
    for name in ["octopus.db", "octopus.db-journal"] {
        fs::copy(backend.folder().join(name), cut_off.folder().join(name)).unwrap();
    }
    connection.close().await.unwrap();
    assert!(
        fs::metadata(file(&cut_off)).unwrap().len() > 1_000_000,
        "the transaction was not written"
    );
    for migrate in [true, false] {
        let db = open(&cut_off, migrate).await.unwrap();
        let (version,): (i64,) =
            query(&db, "SELECT version FROM installation").one().await.unwrap();
        assert!(version >= 0, "{version}");
        db.close().await;
    }
    assert_eq!(files(&cut_off), ["octopus.db"]);
}

/// The number and the name of each migration for a kind of database, in order.
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

/// The number of migrations.
fn migration_count() -> i64 {
    migrations("sqlite").len().try_into().unwrap()
}

#[apply(without_database!)]
fn both_databases_have_the_same_migrations() {
    let sqlite = migrations("sqlite");
    assert!(!sqlite.is_empty());
    assert_eq!(sqlite, migrations("postgres"));
    assert_eq!(tables::of_migrations("sqlite"), tables::of_migrations("postgres"));
}
