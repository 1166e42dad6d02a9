//! Files that the import refuses, and files with a write-ahead log or a journal.

use super::source::{Key, MASTER, Source};
use super::{import, run};
use crate::support::process::{Server, octopus_on};
use crate::support::{Backend, TestApp};
use sqlx::sqlite::SqliteJournalMode;
use sqlx::{Connection, Executor};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The error output of an import that refuses `path`.
async fn refused(backend: &Backend, path: PathBuf) -> String {
    let output = run(backend, &Source { path }, &[]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[apply(on_both!)]
async fn files_that_are_no_database_of_the_original_are_refused(backend: Backend) {
    let folder = backend.folder();
    let file = |name: &str| folder.join(name);
    let make = async |name: &str, sql: &str| {
        let source = Source { path: file(name) };
        source.execute(sql).await;
        source.path
    };
    fs::write(file("empty"), "").unwrap();
    fs::write(file("text"), "id,email\n1,ada@example.com\n".repeat(20)).unwrap();
    let users = "CREATE TABLE users (id INTEGER PRIMARY KEY, email, username, hashed_password);";
    let conversations = "CREATE TABLE conversations (id INTEGER PRIMARY KEY);";
    let cases = [
        (file("missing"), "No such file"),
        (folder.to_owned(), "it is not a file"),
        (file("empty"), "it is not an SQLite database"),
        (file("text"), "it is not an SQLite database"),
        (make("other", "CREATE TABLE things (id INTEGER)").await, "it has no table users"),
        (make("no-messages", &format!("{users}{conversations}")).await, "it has no table messages"),
        (
            make(
                "no-column",
                &format!("{users}{conversations} CREATE TABLE messages (id, role, content);"),
            )
            .await,
            "its table messages has no column conversation_id",
        ),
        (
            make(
                "no-secret",
                &format!(
                    "{users}{conversations} CREATE TABLE messages (id, conversation_id, role, content); \
                     CREATE TABLE api_keys (id, name);"
                ),
            )
            .await,
            "its table api_keys has no column key",
        ),
        (make("wide", "PRAGMA encoding = 'UTF-16'; CREATE TABLE users (id)").await, "not UTF-8"),
    ];
    for (path, why) in cases {
        let name = path.display().to_string();
        let text = refused(&backend, path).await;
        assert!(
            text.contains("cannot import") && text.contains(&name) && text.contains(why),
            "{text}"
        );
    }
    if backend.is_sqlite() {
        assert!(!file("octopus.db").exists(), "nothing was made for nothing");
        let other = backend.another();
        TestApp::new(&other).await.stop().await.unwrap();
        let text = refused(&backend, other.folder().join("octopus.db")).await;
        assert!(text.contains("it is already an Octopus database"), "{text}");
    }
}

#[apply(on_sqlite!)]
async fn a_failed_import_removes_only_the_files_that_it_created(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    let names = || {
        let entries = fs::read_dir(backend.folder()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    fs::create_dir_all(backend.folder().join("tmp")).unwrap();
    let before = names();
    // A folder in place of the audit key file: the import fails after it has created the database.
    fs::create_dir(backend.folder().join("octopus.db.audit-key")).unwrap();
    let text = refused(&backend, source.path.clone()).await;
    fs::remove_dir(backend.folder().join("octopus.db.audit-key")).unwrap();
    assert_eq!(names(), before, "{text}");
    import(&backend, &source, &[]).await;
    assert!(backend.folder().join("octopus.db").exists());
}

#[apply(on_sqlite!)]
async fn the_database_itself_is_refused_by_whatever_name(backend: Backend) {
    let target = backend.folder().join("octopus.db");
    let source = Source::full(backend.folder()).await;
    fs::rename(&source.path, &target).unwrap();
    let before = fs::read(&target).unwrap();
    let link = backend.folder().join("soft");
    symlink(&target, &link).unwrap();
    let hard = backend.folder().join("hard");
    fs::hard_link(&target, &hard).unwrap();
    let roundabout = backend.folder().join("tmp/../octopus.db");
    fs::create_dir_all(backend.folder().join("tmp")).unwrap();
    for path in [target.clone(), link, hard, roundabout] {
        let text = refused(&backend, path).await;
        assert!(text.contains("is the database that DATABASE_URL names"), "{text}");
    }
    assert_eq!(fs::read(&target).unwrap(), before);
}

#[apply(on_sqlite!)]
async fn a_server_that_is_started_on_the_original_names_the_command(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    fs::rename(&source.path, backend.folder().join("octopus.db")).unwrap();
    let output = octopus_on(&backend).await.arg("serve").env("PORT", "0").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("`octopus import`"), "{text}");
}

#[apply(on_sqlite!)]
async fn nothing_is_imported_beside_a_running_server(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    let server = Server::start(&backend, &[]).await;
    for options in [&[][..], &["--dry-run"]] {
        let output = run(&backend, &source, options).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains("octopus.db.lock"), "{text}");
    }
    assert_eq!(server.stop().0, Some(0));
    assert_eq!(import(&backend, &source, &[]).await.rows("users"), [3, 3, 0, 0]);
}

/// The files beside `path` and their contents.
fn files(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[apply(on_both!)]
async fn a_file_with_a_log_beside_it_is_read_whole_and_left_as_it_is(backend: Backend) {
    // Data that is only in the write-ahead log, and the journal of an interrupted change.
    let folder = backend.folder().join("original");
    for mode in ["wal", "journal", "closed"] {
        let target = backend.another();
        fs::create_dir_all(&folder).unwrap();
        let source = Source::full(&folder).await;
        if mode == "wal" || mode == "closed" {
            let mut connection = source.connect(SqliteJournalMode::Wal).await;
            let message = "INSERT INTO messages VALUES (90, 5, 1, 'user', 'in the log', \
                '2025-02-03 00:00:00.000000')";
            connection.execute(message).await.unwrap();
            if mode == "closed" {
                connection.close().await.unwrap();
            } else {
                // The state after a crash.
                let crashed = folder.join("crashed");
                fs::create_dir_all(&crashed).unwrap();
                for suffix in ["", "-wal"] {
                    let name = format!("chat_conversations.db{suffix}");
                    fs::copy(folder.join(&name), crashed.join(&name)).unwrap();
                }
                connection.close().await.unwrap();
                for suffix in ["", "-wal"] {
                    let name = format!("chat_conversations.db{suffix}");
                    fs::rename(crashed.join(&name), folder.join(&name)).unwrap();
                }
                fs::remove_dir(crashed).unwrap();
            }
        } else {
            half_written(&source).await;
        }
        let before = files(&source.path);
        assert_eq!(before.len(), if mode == "closed" { 1 } else { 2 }, "{mode}");
        let imported = import(&target, &source, &[]).await;
        let count = if mode == "journal" { 4 } else { 5 };
        assert_eq!(imported.rows("messages"), [count, count, 0, 0], "{mode}");
        assert_eq!(imported.report["summary"]["source_copied"], true);
        assert!(files(&source.path) == before, "{mode}: the original is only read");
        let app = TestApp::new(&target).await;
        app.get("/api/v1/users").key(MASTER).send().await.expect(200);
        app.stop().await.unwrap();
        target.remove().await;
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// Creates the state after a crash during a large change: the file has changed pages, and the
/// journal has their old contents.
async fn half_written(source: &Source) {
    let folder = source.path.parent().unwrap();
    let crashed = folder.join("crashed");
    fs::create_dir_all(&crashed).unwrap();
    let mut connection = source.connect(SqliteJournalMode::Delete).await;
    connection.execute("PRAGMA cache_size = 1; BEGIN").await.unwrap();
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
        INSERT INTO messages SELECT 1000 + i, 5, NULL, 'user', hex(randomblob(200)), \
        '2025-02-03 00:00:00.000000' FROM n; UPDATE messages SET content = 'gone'";
    connection.execute(many).await.unwrap();
    for suffix in ["", "-journal"] {
        let name = format!("chat_conversations.db{suffix}");
        fs::copy(folder.join(&name), crashed.join(&name)).unwrap();
    }
    connection.execute("ROLLBACK").await.unwrap();
    connection.close().await.unwrap();
    for suffix in ["", "-journal"] {
        let name = format!("chat_conversations.db{suffix}");
        fs::rename(crashed.join(&name), folder.join(&name)).unwrap();
    }
    fs::remove_dir(crashed).unwrap();
}

#[apply(on_sqlite!)]
async fn a_report_is_private_and_never_replaces_a_database(backend: Backend) {
    let source = Source::second(backend.folder()).await;
    source.key(Key::default()).await;
    import(&backend, &source, &[]).await;
    let mode = |name: &str| {
        fs::metadata(backend.folder().join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("report.json"), mode("octopus.db")), (0o600, 0o600));
    for name in ["octopus.db", "chat_conversations.db", "octopus.db.audit-key"] {
        let path = backend.folder().join(name);
        let before = fs::read(&path).unwrap();
        let output = run(&backend, &source, &["--report", path.to_str().unwrap()]).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains("cannot write the report"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    let output = run(&backend, &source, &["--report", "/nowhere/at/all.json"]).await;
    assert!(!output.status.success());
}
