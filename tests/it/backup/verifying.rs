//! `octopus verify` on databases in use and on backups, intact and damaged.

use super::{backed_up, filled, run};
use crate::support::Backend;
use crate::support::process::{Server, output_text};
use serde_json::{Value, json};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The names of the failed checks in the output of `--json`. Asserts that the exit code and `ok`
/// agree.
#[track_caller]
fn failed(output: &std::process::Output) -> Vec<String> {
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let checks = report["checks"].as_array().unwrap().iter();
    let failed: Vec<_> = checks.filter(|check| check["problems"] != json!([])).collect();
    let is_ok = failed.is_empty() && report["intact"] == true;
    assert_eq!((output.status.code(), &report["ok"]), (Some(i32::from(!is_ok)), &json!(is_ok)));
    failed.into_iter().map(|check| check["name"].as_str().unwrap().to_owned()).collect()
}

#[apply(on_both!)]
async fn a_database_in_order_verifies_in_use_and_at_rest(backend: Backend) {
    let (app, _) = filled(&backend).await;
    if !backend.is_sqlite() {
        // The state after an insert with explicit ids.
        backend.execute("ALTER TABLE users ALTER COLUMN id RESTART WITH 3").await;
    }
    for moment in ["in use", "at rest"] {
        let output = run(&backend, &["verify"]).await;
        assert!(output.status.success(), "{moment}: {}", output_text(&output));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains("ok      message sequence numbers\n"), "{printed}");
        assert_eq!(printed.contains("ok      file integrity\n"), backend.is_sqlite());
        assert!(!printed.contains("FAILED"), "{printed}");
        assert_eq!(failed(&run(&backend, &["verify", "--json"]).await), [""; 0], "{moment}");
        app.state.db.close().await;
    }
}

#[apply(on_both!)]
async fn redundant_data_that_differs_is_reported(backend: Backend) {
    filled(&backend).await.0.stop().await.unwrap();
    let is_sqlite = backend.is_sqlite();
    let take_back = |table: &str| {
        if is_sqlite {
            format!("UPDATE sqlite_sequence SET seq = 0 WHERE name = '{table}'")
        } else {
            format!("ALTER TABLE {table} ALTER COLUMN id RESTART WITH 1")
        }
    };
    let faults = [
        (
            "message sequence numbers",
            "UPDATE conversations SET last_seq = last_seq + 1 WHERE id = 2",
            "UPDATE conversations SET last_seq = last_seq - 1 WHERE id = 2",
        ),
        (
            "message sequence numbers",
            "UPDATE messages SET seq = 9 WHERE conversation_id = 2 AND seq = 1",
            "UPDATE messages SET seq = 1 WHERE conversation_id = 2 AND seq = 9",
        ),
        (
            "conversation timestamps",
            "UPDATE conversations SET active_at = '2020-01-01T00:00:00+00:00' WHERE id = 2",
            "UPDATE conversations SET active_at = (SELECT m.created_at FROM messages m \
             WHERE m.conversation_id = conversations.id AND m.seq = last_seq) WHERE id = 2",
        ),
        (
            "conversation external ids",
            "UPDATE conversations SET external_id = NULL WHERE id = 1",
            "UPDATE conversations SET external_id = 'x' WHERE id = 1",
        ),
        (
            "deleted messages",
            "UPDATE messages SET metadata = '{}' WHERE deleted_at IS NOT NULL",
            "UPDATE messages SET metadata = NULL WHERE deleted_at IS NOT NULL",
        ),
        (
            "API key rotations",
            "UPDATE api_keys SET rotated_to_id = NULL WHERE rotated_to_id IS NOT NULL",
            "UPDATE api_keys SET rotated_to_id = (SELECT n.id FROM api_keys n \
             WHERE n.rotated_from_id = api_keys.id)",
        ),
        (
            "installation row",
            "DELETE FROM installation",
            "INSERT INTO installation (id) VALUES (1)",
        ),
        (
            "API key and user names",
            "UPDATE users SET email_key = 'Ann@example.com' WHERE id = 1",
            "UPDATE users SET email_key = 'ann@example.com' WHERE id = 1",
        ),
        (
            "times",
            "UPDATE users SET updated_at = '1969-12-31T23:59:59+00:00' WHERE id = 1",
            "UPDATE users SET updated_at = created_at WHERE id = 1",
        ),
        ("next ids", &*take_back("messages"), ""),
    ];
    for (name, spoil, repair) in faults {
        backend.execute(spoil).await;
        let output = run(&backend, &["verify", "--json"]).await;
        assert_eq!(failed(&output), [name], "{spoil}");
        let output = run(&backend, &["verify"]).await;
        let expected = format!("octopus: the database failed these checks: {name}\n");
        assert_eq!((output.status.code(), output_text(&output)), (Some(1), expected));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains(&format!("FAILED  {name}: ")), "{printed}");
        assert!(printed.contains("The audit chain is intact"), "{printed}");
        backend.execute(repair).await;
    }
    // Both are reported.
    backend.execute("DELETE FROM api_key_audit_logs WHERE seq = 1").await;
    let output = run(&backend, &["verify"]).await;
    let both = "octopus: the database failed these checks: next ids\nthe audit chain is broken \
                at seq 1: the entry is missing; the 0 entries before it are intact\n";
    assert_eq!((output.status.code(), &*output_text(&output)), (Some(1), both));
}

#[apply(on_sqlite!)]
async fn faults_that_sqlite_does_not_report_are_reported(backend: Backend) {
    filled(&backend).await.0.stop().await.unwrap();
    let index = "search index";
    for (name, spoil, repair) in [
        (
            "foreign keys",
            "PRAGMA foreign_keys = OFF; UPDATE participants SET user_id = 99 WHERE user_id = 1",
            "PRAGMA foreign_keys = OFF; UPDATE participants SET user_id = 1 WHERE user_id = 99",
        ),
        (
            index,
            "DELETE FROM message_search_data WHERE id > 10",
            "INSERT INTO message_search (message_search) VALUES ('rebuild')",
        ),
        (
            index,
            "DROP TRIGGER messages_found_otherwise; UPDATE messages SET content = 'another' WHERE id = 1",
            "INSERT INTO message_search (message_search) VALUES ('rebuild')",
        ),
    ] {
        backend.execute(spoil).await;
        assert!(
            failed(&run(&backend, &["verify", "--json"]).await).contains(&name.to_owned()),
            "{spoil}"
        );
        backend.execute(repair).await;
        assert_eq!(failed(&run(&backend, &["verify", "--json"]).await), [""; 0], "{repair}");
    }
}

#[apply(on_sqlite!)]
async fn a_page_that_was_overwritten_is_found_in_a_backup(backend: Backend) {
    let (app, _) = filled(&backend).await;
    let backup = backed_up(&backend, "b.db").await;
    app.stop().await.unwrap();
    let bytes = fs::read(&backup).unwrap();
    let pages = bytes.len() / 4096;
    let mut unnoticed = vec![];
    for page in 0..pages {
        let mut file = fs::OpenOptions::new().write(true).open(&backup).unwrap();
        file.seek(SeekFrom::Start(page as u64 * 4096)).unwrap();
        file.write_all(&[0xff; 4096]).unwrap();
        drop(file);
        if run(&backend, &["verify", "b.db"]).await.status.success() {
            unnoticed.push(page);
        }
        fs::write(&backup, &bytes).unwrap();
    }
    assert_eq!(unnoticed, [0; 0], "of {pages} pages");
    fs::OpenOptions::new().write(true).open(&backup).unwrap().set_len(8192).unwrap();
    assert_eq!(run(&backend, &["verify", "b.db"]).await.status.code(), Some(1), "cut off");
}

#[apply(on_sqlite!)]
async fn verifying_a_backup_leaves_it_and_its_folder_as_they_are(backend: Backend) {
    let (app, _) = filled(&backend).await;
    let backup = backed_up(&backend, "b.db").await;
    app.stop().await.unwrap();
    let sealed = backend.folder().join("sealed");
    fs::create_dir(&sealed).unwrap();
    let inside = sealed.join("b.db");
    fs::copy(&backup, &inside).unwrap();
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&sealed, fs::Permissions::from_mode(0o500)).unwrap();
    let read =
        |path: &Path| (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
    let before = read(&inside);
    let output = run(&backend, &["verify", "sealed/b.db"]).await;
    assert!(output.status.success(), "{}", output_text(&output));
    assert!(read(&inside) == before);
    let left = fs::read_dir(&sealed).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["b.db"]);
    fs::set_permissions(&sealed, fs::Permissions::from_mode(0o700)).unwrap();

    for (name, contents, why) in [
        ("nothing.db", None, "nothing.db: No such file"),
        ("empty.db", Some(""), "this database is empty"),
        (
            "diary.db",
            Some("Dear diary, nothing happened today. Dear diary, nothing."),
            "is not an SQLite database",
        ),
    ] {
        if let Some(contents) = contents {
            fs::write(backend.folder().join(name), contents).unwrap();
        }
        let output = run(&backend, &["verify", name]).await;
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(output_text(&output).contains(why), "{name}: {}", output_text(&output));
    }
}

/// A write-ahead log that was copied with its file belongs to it and is verified too.
#[apply(on_sqlite!)]
async fn a_raw_copy_is_verified_together_with_its_log(backend: Backend) {
    let mut server = Server::start(&backend, &[]).await;
    let bootstrap = reqwest::Client::new().post(server.url("/bootstrap")).send().await.unwrap();
    assert_eq!(bootstrap.status(), 200);
    server.kill();
    for ending in ["", "-wal"] {
        let from = backend.folder().join(format!("octopus.db{ending}"));
        fs::copy(from, backend.folder().join(format!("copy.db{ending}"))).unwrap();
    }
    let output = run(&backend, &["verify", "copy.db"]).await;
    assert!(output.status.success(), "{}", output_text(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("The audit chain is intact: 1 entries."), "{printed}");
}
