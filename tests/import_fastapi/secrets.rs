//! Plain-text API keys in other fields: the import removes or reports them and never prints them.

use super::source::{Key, MASTER, READER, Source, user};
use super::{Imported, import};
use crate::support::{Backend, TestApp};
use serde_json::Value;

/// Without the prefix of Octopus keys.
const PLAIN: &str = "s3cret-of-the-office-of-ours/2025";
/// As short as a word.
const SHORT: &str = "opensesame";

async fn with_keys(backend: &Backend) -> Source {
    let source = Source::second(backend.folder()).await;
    for (id, key) in [(1, MASTER), (2, READER), (3, PLAIN), (4, SHORT)] {
        source.key(Key { id, key, name: "a key", ..Key::default() }).await;
    }
    source
}

/// Asserts that neither the output nor the report has a key.
fn assert_no_secrets(imported: &Imported) {
    let report = imported.report.to_string();
    for secret in [MASTER, READER, PLAIN, SHORT] {
        assert!(!imported.output.contains(secret), "{secret}: {}", imported.output);
        assert!(!report.contains(secret), "{secret}: {report}");
    }
}

fn kinds(imported: &Imported) -> Vec<String> {
    let notes = imported.notes().into_iter().filter(|note| note.0 != "api_keys");
    notes.map(|(table, id, kind, done)| format!("{table} {id} {kind} {done}")).collect()
}

#[apply(on_both!)]
async fn a_key_in_a_title_or_name_is_removed_and_one_in_a_login_name_is_reported(backend: Backend) {
    let source = with_keys(&backend).await;
    source.insert_users().await;
    source.insert_conversations().await;
    let keys = format!(
        "UPDATE users SET full_name = 'Ada, {MASTER}' WHERE id = 1;
        UPDATE users SET username = '{PLAIN}' WHERE id = 2;
        UPDATE users SET email = '{READER}@example.com' WHERE id = 3;
        UPDATE conversations SET title = 'about {MASTER}{READER}' WHERE id = 5;"
    );
    source.execute(&keys).await;
    let imported = import(&backend, &source, &[]).await;
    let expected = [
        "users 1 key_inside changed",
        "users 2 key_inside kept",
        "users 3 key_inside kept",
        "conversations 5 key_inside changed",
    ];
    assert_eq!(kinds(&imported), expected);
    assert_no_secrets(&imported);
    let app = TestApp::new(&backend).await;
    let title: Vec<(Option<String>,)> =
        app.rows("SELECT title FROM conversations WHERE id = 5").await;
    assert_eq!(title[0].0.as_deref(), Some("about [key][key]"));
    let users: Vec<(Option<String>, String)> =
        app.rows("SELECT full_name, username FROM users ORDER BY id").await;
    assert_eq!(users[0].0.as_deref(), Some("Ada, [key]"));
    assert_eq!(users[1].1, PLAIN, "they log in with it");
}

#[apply(on_both!)]
async fn no_note_shows_a_key_whatever_it_is_about(backend: Backend) {
    let source = with_keys(&backend).await;
    let long = format!("{}{PLAIN}", "x".repeat(80));
    for (id, name, email) in [
        (1, MASTER, "ada@example.com"),
        (2, &format!("{READER}@home"), PLAIN),
        (3, "bob", &format!("{}{READER}", "y".repeat(230))),
        (4, &long, "cleo@example.com"),
    ] {
        source.execute(&user(id, name, email)).await;
    }
    let secrets = format!(
        "UPDATE api_keys SET scopes = 'read,{PLAIN}', allowed_ips = '192.0.2.1,{READER}' WHERE id = 4;
        INSERT INTO conversations VALUES (1, 'a', '2025-02-01 00:00:00', '2025-02-01 00:00:00');
        INSERT INTO messages VALUES (1, 1, NULL, '{MASTER}', 'x', '2025-02-01 00:00:00');"
    );
    source.execute(&secrets).await;
    // The target already has this name, so a note names this user too.
    let app = TestApp::new(&backend).await;
    app.post(
        "/api/v1/users",
        serde_json::json!({
            "username": MASTER, "email": "impostor@example.com", "password": "correct horse battery",
        }),
    )
    .send()
    .await
    .expect(201);
    app.stop().await.unwrap();
    let imported = import(&backend, &source, &[]).await;
    let all: Vec<String> =
        imported.notes().into_iter().map(|(table, _, kind, _)| format!("{table} {kind}")).collect();
    for kind in [
        "users username_taken",
        "users username_mended",
        "users email_mended",
        "users key_inside",
        "api_keys unknown_scope",
        "api_keys address_dropped",
        "messages role_mended",
    ] {
        assert!(all.iter().any(|found| found == kind), "{kind} in {all:?}");
    }
    assert_no_secrets(&imported);
    for half in [&MASTER[..20], &READER[..20], &PLAIN[..20]] {
        assert!(!imported.report.to_string().contains(half), "{half}: {}", imported.report);
    }
    let app = TestApp::new(&backend).await;
    let stored: Vec<(String,)> = app.rows("SELECT metadata FROM messages WHERE id = 1").await;
    assert!(stored[0].0.contains("[key]"), "{}", stored[0].0);
}

#[apply(on_both!)]
async fn a_key_of_any_form_is_found_in_messages(backend: Backend) {
    let source = with_keys(&backend).await;
    let rows = format!(
        "INSERT INTO conversations VALUES (1, 'a', '2025-02-01 00:00:00', '2025-02-01 00:00:00');
        INSERT INTO messages VALUES
            (1, 1, NULL, 'user', 'take {PLAIN}, will you', '2025-02-01 00:00:01'),
            (2, 1, NULL, 'user', 'say {SHORT}', '2025-02-01 00:00:02'),
            (3, 1, NULL, 'user', '{READER}', '2025-02-01 00:00:03'),
            (4, 1, NULL, 'user', 'half of one: {}', '2025-02-01 00:00:04');",
        &READER[..READER.len() - 1]
    );
    source.execute(&rows).await;
    let imported = import(&backend, &source, &[]).await;
    assert_eq!(kinds(&imported), ["messages 1 key_inside kept", "messages 3 key_inside kept"]);
    assert_no_secrets(&imported);
}

#[apply(on_both!)]
async fn a_key_that_is_written_with_escapes_does_not_come_into_the_chain(backend: Backend) {
    let source = with_keys(&backend).await;
    let escaped = MASTER.replacen('J', "\\u004a", 1);
    let slash = PLAIN.replace('/', "\\/");
    let longer = format!("{SHORT}-and-more");
    source.key(Key { id: 5, key: &longer, name: "longer", ..Key::default() }).await;
    let rows = format!(
        "INSERT INTO api_key_audit_logs VALUES
            (1, 1, 'update', 1, NULL, '{{\"old\": [\"{escaped}\"], \"n\": 7}}', '2025-02-01 00:00:00'),
            (2, 1, 'update', 1, NULL, '[\"{slash}\"]', '2025-02-01 00:00:00'),
            (3, 1, 'update', 1, NULL, '[ 1 ]', '2025-02-01 00:00:00'),
            (4, 1, 'update', 1, NULL, 'it was {longer}', '2025-02-01 00:00:00');"
    );
    source.execute(&rows).await;
    assert_no_secrets(&import(&backend, &source, &[]).await);
    let app = TestApp::new(&backend).await;
    let sql =
        "SELECT details FROM api_key_audit_logs WHERE details LIKE '{\"original\":%' ORDER BY seq";
    let rows: Vec<(String,)> = app.rows(sql).await;
    let details: Vec<Value> = rows
        .iter()
        .map(|(row,)| serde_json::from_str::<Value>(row).unwrap()["original"]["details"].clone())
        .collect();
    assert_eq!(details[0], serde_json::json!({"old": ["[key]"], "n": 7}));
    assert_eq!(details[1..], ["[\"[key]\"]", "[ 1 ]", "it was [key]"]);
}
