//! The migration from the first version, whose audit log was not a hash chain.

use super::{
    BEYOND, LOGS, NOT_ADOPTED, OTHER_ANCHOR, VERIFY, append, broken, bytes, get, intact, open,
    verify,
};
use crate::support::process::{octopus_on, output_text};
use crate::support::{Backend, TestApp};
use octopus::core::clock::Clock;
use octopus::core::config::DatabaseUrl;
use octopus::db::{DbOptions, OpenError, query};
use octopus::state::{AppState, StartError};
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use sqlx_postgres::PgConnection;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

const TIME: &str = "'2026-01-01T00:00:00.123456+00:00'";

const END: &str = "'2099-01-01T00:00:00+00:00'";

/// The columns of the first version, without the demo table `items`, which a project may drop. `id`
/// of the audit log became `seq`.
const COLUMNS: [(&str, &str); 7] = [
    ("installation", "id, version"),
    (
        "users",
        "id, email, email_key, username, username_key, full_name, password_hash, is_active, \
         is_superuser, created_at, updated_at",
    ),
    (
        "api_keys",
        "id, key_hash, key_prefix, name, description, scopes, is_active, created_at, expires_at, \
         last_used_at, last_used_ip, allowed_ips, created_by_user_id, rotated_from_id, rotated_at",
    ),
    ("conversations", "id, title, last_seq, created_at, updated_at"),
    ("participants", "conversation_id, user_id"),
    ("messages", "id, conversation_id, seq, role, content, user_id, created_at"),
    (
        "api_key_audit_logs",
        "api_key_id, action, performed_by_key_id, performed_by_ip, details, timestamp",
    ),
];

/// Creates the schema of the first version with its own migration.
pub async fn first_version(backend: &Backend) {
    backend.start_empty();
    let kind = if backend.is_sqlite() { "sqlite" } else { "postgres" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(kind);
    let all = Migrator::new(folder).await.unwrap();
    let first = all.iter().filter(|migration| migration.version == 1).cloned().collect();
    let first = Migrator::with_migrations(first);
    let url = backend.url().await;
    if backend.is_sqlite() {
        backend.execute("PRAGMA journal_mode = WAL").await; // creates the file
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        first.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        first.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// Creates the schema of the first version with rows in every table.
async fn fill_first_version(backend: &Backend) {
    first_version(backend).await;
    // Bytes of ASCII letters, so that the test can compare them as text.
    let hash = |letter: &str| bytes(backend, &letter.repeat(32));
    let (a, b, c) = (hash("61"), hash("62"), hash("63"));
    backend
        .execute(format!(
            "UPDATE installation SET version = 5;
             INSERT INTO users (id, email, email_key, username, username_key, full_name, password_hash, created_at, updated_at)
             VALUES (3, 'Ä@example.com', 'ä@example.com', 'Ada', 'ada', 'Ada L.', 'x', {TIME}, {TIME});
             INSERT INTO api_keys (id, key_hash, key_prefix, name, description, scopes, created_at, expires_at,
                last_used_at, last_used_ip, allowed_ips, created_by_user_id, rotated_from_id, rotated_at)
             VALUES (1, {a}, 'octopus_aaaa', 'Master API Key', NULL, 'admin,read,write', {TIME}, NULL, {TIME},
                '192.0.2.1', NULL, 3, NULL, NULL),
                (4, {b}, 'octopus_bbbb', 'ÜBUNG Straße', 'd', 'read', {TIME}, {END}, NULL, NULL, '10.0.0.0/8', NULL, NULL, {TIME}),
                (5, {c}, 'octopus_cccc', 'New', 'd', 'read', {TIME}, {END}, NULL, NULL, '10.0.0.0/8', NULL, 4, NULL);
             INSERT INTO conversations (id, title, last_seq, created_at, updated_at) VALUES (2, 'a talk', 2, {TIME}, {TIME});
             INSERT INTO participants (conversation_id, user_id) VALUES (2, 3);
             INSERT INTO messages (id, conversation_id, seq, role, content, user_id, created_at)
             VALUES (8, 2, 1, 'user', 'one', 3, {TIME}), (9, 2, 2, 'assistant', 'two', NULL, {TIME});
             INSERT INTO api_key_audit_logs (id, api_key_id, action, performed_by_key_id, performed_by_ip, details, timestamp)
             VALUES (2, 1, 'bootstrap', NULL, '192.0.2.1', '{{\"by\":\"request\"}}', {TIME}),
                (3, 4, 'create', 1, '192.0.2.1', '{{\"name\":\"Old\"}}', {TIME}),
                (7, 99, 'delete', 98, '192.0.2.2', '{{\"name\":\"gone\"}}', {TIME}),
                (9, 4, 'expire', NULL, NULL, '{{\"name\": \"Old\"}}', {TIME}),
                (10, NULL, 'update_user', 1, '::1', '{{\"user_id\":3}}', {TIME});"
        ))
        .await;
    if !backend.is_sqlite() {
        // Rows inserted with explicit ids do not advance the sequences.
        let tables = ["users", "api_keys", "conversations", "messages"];
        let follow = |table| {
            format!(
                "SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT MAX(id) FROM {table}));"
            )
        };
        backend.execute(tables.map(follow).concat()).await;
    }
}

/// An INSERT of a conversation, for every version of the schema.
fn insert_conversation(title: &str) -> String {
    format!(
        "INSERT INTO conversations (title, created_at, updated_at) VALUES ('{title}', {TIME}, {TIME})"
    )
}

/// The number of conversations in the result of [`contents`].
fn conversations(contents: &[(String, Vec<String>)]) -> usize {
    contents.iter().find(|(table, _)| table == "conversations").unwrap().1.len()
}

/// All rows of the tables of [`COLUMNS`], in these columns.
async fn contents(backend: &Backend, url: &str) -> Vec<(String, Vec<String>)> {
    let mut contents = vec![];
    for (table, columns) in COLUMNS {
        let texts = columns.split(", ").map(|c| format!("COALESCE(CAST({c} AS TEXT), 'NULL')"));
        let text = texts.collect::<Vec<_>>().join(" || '|' || ");
        let sql = AssertSqlSafe(format!("SELECT {text} AS t FROM {table} ORDER BY t"));
        let rows: Vec<String> = if backend.is_sqlite() {
            let mut connection = SqliteConnection::connect(url).await.unwrap();
            sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
        } else {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
        };
        contents.push((table.to_owned(), rows));
    }
    contents
}

#[apply(on_both!)]
async fn an_older_audit_log_is_adopted_into_the_chain_unchanged(backend: Backend) {
    fill_first_version(&backend).await;
    let app = TestApp::new(&backend).await;
    // The secrets of the inserted keys are unknown, so the test needs a new key.
    backend.execute("DELETE FROM api_keys").await;
    let admin = app.admin().await;
    let logs = get(&app, &admin, LOGS).await;
    let shown: Vec<Value> = logs
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|log| {
            assert_eq!(log["request_id"], json!(null));
            assert_eq!(log["hash"].as_str().map(str::len), Some(64), "{log}");
            json!([
                log["id"],
                log["api_key_id"],
                log["api_key_name"],
                log["action"],
                log["performed_by"],
                log["performed_by_key_id"],
                log["performed_by_key_name"],
                log["performed_by_ip"],
                log["details"],
            ])
        })
        .collect();
    let (master, ip) = ("Master API Key", "192.0.2.1");
    let expected = json!([
        [1, 1, master, "bootstrap", "anonymous", null, null, ip, {"by": "request"}],
        [2, 4, "ÜBUNG Straße", "create", "key", 1, master, ip, {"name": "Old"}],
        // The names of deleted keys are not known.
        [3, 99, null, "delete", "key", 98, null, "192.0.2.2", {"name": "gone"}],
        [4, 4, "ÜBUNG Straße", "expire", "server", null, null, null, {"name": "Old"}],
        [5, null, null, "update_user", "key", 1, master, "::1", {"user_id": 3}],
        [6, null, null, "adopt_trail", "server", null, null, null, {"rows": 5}],
    ]);
    assert_eq!(json!(shown[..6]), expected);
    assert_eq!(logs[6]["timestamp"], "2026-01-01T00:00:00.123456Z");
    assert_eq!(shown.len(), 7, "and the first key of the new version");
    assert_eq!(get(&app, &admin, VERIFY).await["verified_rows"], 7);

    // The adopted rows are protected by the chain.
    app.stop().await.unwrap();
    let app = open(&backend, &[]).await;
    intact(&app, 7, "a second start adds nothing").await;
    backend.execute("UPDATE api_key_audit_logs SET performed_by_ip = NULL WHERE seq = 3").await;
    broken(&verify(&app, None).await, (3, super::CHANGED), "an older row");
}

#[apply(on_both!)]
async fn concurrent_starts_on_an_older_database_adopt_its_audit_log_once(backend: Backend) {
    fill_first_version(&backend).await;
    let mut starters = JoinSet::new();
    for _ in 0..6 {
        let backend = backend.clone();
        // Separate threads, as separate processes would be.
        starters.spawn_blocking(move || {
            Handle::current().block_on(async { open(&backend, &[]).await.db.close().await });
        });
    }
    starters.join_all().await;
    let app = open(&backend, &[]).await;
    intact(&app, 6, "five rows and the entry of their adoption").await;
}

#[apply(on_both!)]
async fn an_older_audit_log_may_have_details_and_times_of_every_kind(backend: Backend) {
    first_version(&backend).await;
    let insert = "INSERT INTO api_key_audit_logs (action, details, timestamp) VALUES";
    for details in ["", "no JSON", "null", "[1]", "7", "\"text\"", " {} ", "{", "{\"a\": 1}"] {
        backend.execute(format!("{insert} ('create', '{details}', {TIME})")).await;
    }
    for time in ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00.1234567+01:00"] {
        backend.execute(format!("{insert} ('create', '{{}}', '{time}')")).await;
    }
    // More than one batch.
    let more = format!("{insert} {}", vec![format!("('create', '{{}}', {TIME})"); 1200].join(", "));
    backend.execute(more).await;
    let app = open(&backend, &[]).await;
    intact(&app, 1212, "as they stand").await;
    // A value that is not an object differs from a string with the same characters.
    for (details, seq) in [("'\"no JSON\"'", 2), ("'text'", 6), ("'{}'", 7), ("'null '", 3)] {
        let edit = format!("UPDATE api_key_audit_logs SET details = {details} WHERE seq = {seq}");
        let undo = "UPDATE api_key_audit_logs SET details = (SELECT s.details FROM saved s \
                    WHERE s.seq = api_key_audit_logs.seq)";
        backend.execute("CREATE TABLE saved AS SELECT * FROM api_key_audit_logs").await;
        backend.execute(edit).await;
        broken(&verify(&app, None).await, (seq, super::CHANGED), details);
        backend.execute(format!("{undo}; DROP TABLE saved")).await;
    }
    intact(&app, 1212, "as they stood").await;
}

#[apply(on_both!)]
async fn a_chain_whose_head_was_reset_is_not_adopted_again(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 4).await;
    let zeros = bytes(&backend, &"00".repeat(32));
    let reset = format!("UPDATE audit_head SET seq = 0, hash = {zeros}");
    let strip = "UPDATE api_key_audit_logs SET hash = NULL, payload = NULL, hash_key_id = NULL";
    backend.execute(&*reset).await;
    let app = open(&backend, &[]).await;
    broken(&verify(&app, None).await, (1, BEYOND), "the head alone");
    backend.execute(format!("{strip} WHERE seq <> 4")).await;
    let app = open(&backend, &[]).await;
    broken(&verify(&app, None).await, (1, BEYOND), "all hashes but one");
    let (rows,): (i64,) = query(&app.db, "SELECT CAST(COUNT(*) AS BIGINT) FROM api_key_audit_logs")
        .one()
        .await
        .unwrap();
    assert_eq!(rows, 4, "none was added");
}

/// An attacker who removes every hash and resets the head leaves the state of the first version.
/// The server does not adopt it at startup. An explicit adoption adds an entry, and an anchor
/// proves the manipulation.
#[apply(on_both!)]
async fn an_audit_log_without_its_hashes_is_not_adopted_at_startup(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 4).await;
    let anchor = intact(&app, 4, "as it was made").await;
    let zeros = bytes(&backend, &"00".repeat(32));
    backend
        .execute(format!(
            "UPDATE api_key_audit_logs SET hash = NULL, payload = NULL, hash_key_id = NULL;
             UPDATE api_key_audit_logs SET action = 'create';
             UPDATE audit_head SET seq = 0, hash = {zeros};"
        ))
        .await;
    broken(&verify(&app, None).await, (1, NOT_ADOPTED), "stripped");
    app.db.close().await;
    for _ in 0..2 {
        let refused = AppState::open(backend.config(&[]).await, Clock::default()).await;
        assert!(matches!(refused, Err(StartError::NotAdopted)), "{refused:?}");
    }
    // The second call adopts nothing: it uses the former name of the option.
    for option in ["--adopt-entries", "--adopt-trail"] {
        let output = octopus_on(&backend).await.args(["migrate", option]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let app = open(&backend, &[]).await;
    intact(&app, 5, "adopted by an operator").await;
    let last = "SELECT action, details FROM api_key_audit_logs WHERE seq = 5";
    let last: (String, String) = query(&app.db, last).one().await.unwrap();
    assert_eq!(last, ("adopt_trail".to_owned(), r#"{"rows":4}"#.to_owned()));
    broken(&verify(&app, Some(&anchor)).await, (4, OTHER_ANCHOR), "against an anchor");
}

#[apply(on_both!)]
async fn migrating_from_the_first_version_loses_no_data(backend: Backend) {
    type NewColumns = (String, Option<i64>, Option<String>, Option<i64>);
    const NEW: &str = "SELECT name_key, rotated_to_id, grace_expires_at, rate_limit_per_minute \
                       FROM api_keys ORDER BY id";
    fill_first_version(&backend).await;
    let url = backend.url().await;
    let before = contents(&backend, &url).await;
    assert!(before.iter().all(|(table, rows)| !rows.is_empty() || table.is_empty()), "{before:?}");
    // Opening the database does not migrate it unless requested.
    let parsed: DatabaseUrl = url.parse().unwrap();
    let error = DbOptions::new().create(true).open(&parsed).await.expect_err("opened");
    assert!(matches!(error, OpenError::NotMigrated), "{error:?}");
    assert_eq!(contents(&backend, &url).await, before);

    // `octopus migrate` also adopts the audit log.
    let migrated = octopus_on(&backend).await.arg("migrate").output().unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    let output = octopus_on(&backend).await.arg("verify").output().unwrap();
    assert!(output.status.success(), "{}", output_text(&output));

    let app = open(&backend, &[]).await;
    let new: Vec<NewColumns> = query(&app.db, NEW).all().await.unwrap();
    let expected = [("master api key", None), ("übung strasse", Some(5)), ("new", None)];
    let expected = expected.map(|(name, rotated)| (name.to_owned(), rotated, None, None));
    assert_eq!(new, expected);
    app.db.close().await;
    backend.execute("DELETE FROM api_key_audit_logs WHERE action = 'adopt_trail'").await;
    assert_eq!(contents(&backend, &url).await, before);
    // Ids of deleted rows are not assigned again.
    backend.execute(insert_conversation("next")).await;
    assert_eq!(conversations(&contents(&backend, &url).await), conversations(&before) + 1);
}

#[apply(on_sqlite!)]
async fn a_copy_from_before_the_migration_is_stored_beside_the_database(backend: Backend) {
    fill_first_version(&backend).await;
    let url = backend.url().await;
    let before = contents(&backend, &url).await;
    let app = open(&backend, &[]).await;
    intact(&app, 6, "migrated").await;
    app.db.close().await;
    let names = || {
        let names = fs::read_dir(backend.folder()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let all = ["octopus.db", "octopus.db.audit-key", "octopus.db.before-migration-1"];
    assert_eq!(names(), all);
    let copy = backend.folder().join(all[2]);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let copy_url = format!("sqlite://{}", copy.display());
    assert_eq!(contents(&backend, &copy_url).await, before);
    let mut connection = SqliteConnection::connect(&copy_url).await.unwrap();
    let versions = sqlx::query_scalar("SELECT version FROM _sqlx_migrations");
    let versions: Vec<i64> = versions.fetch_all(&mut connection).await.unwrap();
    assert_eq!(versions, [1]);
    connection.close().await.unwrap();

    // The copy can be restored as the database, which then migrates again.
    for name in all {
        if name != all[2] {
            fs::remove_file(backend.folder().join(name)).unwrap();
        }
    }
    fs::copy(&copy, backend.folder().join(all[0])).unwrap();
    backend.execute(insert_conversation("since")).await;
    let app = open(&backend, &[]).await;
    intact(&app, 6, "migrated again").await;
    app.db.close().await;
    assert_eq!(names(), all);
    let again = contents(&backend, &copy_url).await;
    let expected = conversations(&before) + 1;
    assert_eq!(conversations(&again), expected, "the copy is the one of this time");
}
