//! Invalid ids and reused ids: which rows belong to which user or key.

use super::import;
use super::source::{Key, MASTER, READER, Source};
use crate::support::{Backend, TestApp};
use serde_json::{Value, json};

async fn source_with_conversations(backend: &Backend) -> Source {
    let source = Source::second(backend.folder()).await;
    source.key(Key::default()).await;
    source.insert_users().await;
    source.insert_conversations().await;
    source
}

async fn audit_log(app: &TestApp) -> Vec<(Option<i64>, String)> {
    let sql = "SELECT api_key_id, details FROM api_key_audit_logs \
        WHERE details LIKE '{\"original\":%' ORDER BY seq";
    app.rows(sql).await
}

#[apply(on_both!)]
async fn an_invalid_id_refers_to_no_user(backend: Backend) {
    let source = source_with_conversations(&backend).await;
    let odd = "INSERT INTO conversation_participants VALUES
            ('abc', 5, '2025-02-01 00:00:00'), ('1abc', 5, '2025-02-01 00:00:00'),
            (1.5, 5, '2025-02-01 00:00:00'), (1, '6abc', '2025-02-01 00:00:00');
        INSERT INTO messages VALUES
            (30, 5, '1abc', 'user', 'of nobody', '2025-02-01 13:00:00'),
            (31, '5abc', 1, 'user', 'in nothing', '2025-02-01 13:00:00'),
            (32, 5, 1.5, 'user', 'of nobody either', '2025-02-01 13:00:01');
        UPDATE api_keys SET created_by_user_id = '1abc';
        INSERT INTO api_key_audit_logs VALUES
            (1, '1abc', 'create', '1.5x', NULL, NULL, '2025-02-01 00:00:00.000000');";
    source.execute(odd).await;
    let imported = import(&backend, &source, &[]).await;
    let note = |table: &str, id, kind: &str, done: &str| {
        (table.to_owned(), id, kind.to_owned(), done.to_owned())
    };
    let mut expected = vec![note("api_keys", 1, "unknown_creator", "changed")];
    expected.extend(vec![note("conversation_participants", 0, "orphan", "left_out"); 4]);
    expected.push(note("messages", 31, "orphan", "left_out"));
    expected.push(note("messages", 30, "unknown_user", "changed"));
    expected.push(note("messages", 32, "unknown_user", "changed"));
    assert_eq!(imported.notes(), expected);
    assert_eq!(imported.rows("conversation_participants"), [7, 3, 0, 4]);
    assert_eq!(imported.rows("messages"), [7, 6, 0, 1]);
    let app = TestApp::new(&backend).await;
    let conversation = app.get("/api/v1/conversations/5").key(MASTER).send().await.expect(200);
    assert_eq!(conversation["participants"].as_array().map(Vec::len), Some(2));
    assert_eq!(conversation["messages"][4]["user_id"], Value::Null);
    assert_eq!(conversation["messages"][5]["user_id"], Value::Null);
    let audit_log = audit_log(&app).await;
    let details: Value = serde_json::from_str(&audit_log[0].1).unwrap();
    assert_eq!(audit_log[0].0, None);
    assert_eq!(details["original"]["api_key_id"], "1abc", "as it stands there");
    assert_eq!(details["original"]["performed_by_key_id"], "1.5x");
    app.stop().await.unwrap();
    let again = import(&backend, &source, &[]).await;
    assert_eq!(again.rows("api_key_audit_logs"), [1, 0, 1, 0]);
}

#[apply(on_both!)]
async fn a_user_with_an_unreadable_registration_time_keeps_their_messages(backend: Backend) {
    let source = source_with_conversations(&backend).await;
    let odd =
        "UPDATE users SET created_at = 'once', updated_at = '2025-06-01 00:00:00' WHERE id = 2";
    source.execute(odd).await;
    let imported = import(&backend, &source, &[]).await;
    let kinds: Vec<_> = imported.notes().into_iter().map(|note| (note.1, note.2)).collect();
    assert_eq!(kinds, [(2, "time_unreadable".to_owned())]);
    let app = TestApp::new(&backend).await;
    let conversation = app.get("/api/v1/conversations/5").key(MASTER).send().await.expect(200);
    assert_eq!(
        (&conversation["messages"][2]["user_id"], &conversation["messages"][3]["user_id"]),
        (&json!(2), &json!(2))
    );
}

#[apply(on_both!)]
async fn entries_of_a_deleted_key_or_user_are_not_attached_to_the_next_one_with_its_id(
    backend: Backend,
) {
    let source = source_with_conversations(&backend).await;
    source
        .key(Key { id: 2, key: READER, name: "reader", scopes: "read,write", ..Key::default() })
        .await;
    // Key 2 is newer than the entry of its deletion. User 2 is newer than key 2 but not than key 1.
    // An early version of the original logged whole seconds.
    let reused = "
        UPDATE api_keys SET created_at = '2025-01-03 00:00:00', created_by_user_id = 2 WHERE id = 1;
        UPDATE api_keys SET created_at = '2025-01-01 00:00:01.500000', created_by_user_id = 2
            WHERE id = 2;
        INSERT INTO api_key_audit_logs VALUES
            (1, 2, 'delete', 1, NULL, NULL, '2024-12-31 00:00:00.000000'),
            (2, 2, 'create', 1, NULL, NULL, '2025-01-01 00:00:01'),
            (3, 2, 'update', 1, NULL, NULL, '2025-01-05 00:00:00.000000');";
    source.execute(reused).await;
    let imported = import(&backend, &source, &[]).await;
    let kinds: Vec<_> = imported.notes().into_iter().map(|note| (note.1, note.2)).collect();
    assert_eq!(kinds, [(2, "unknown_creator".to_owned())]);
    let app = TestApp::new(&backend).await;
    let rows = audit_log(&app).await;
    let about: Vec<Option<i64>> = rows.iter().map(|(id, _)| *id).collect();
    assert_eq!(about, [None, Some(2), Some(2)]);
    assert!(rows[0].1.contains("\"api_key_id\":2"), "as it stands there: {}", rows[0].1);
    let makers: Vec<(i64, Option<i64>)> =
        app.rows("SELECT id, created_by_user_id FROM api_keys ORDER BY id").await;
    assert_eq!(makers, [(1, Some(2)), (2, None)]);
}

#[apply(on_both!)]
async fn a_password_that_bcrypt_cut_is_refused_until_it_is_reset(backend: Backend) {
    let source = source_with_conversations(&backend).await;
    let long = "a long password of many words ".repeat(3);
    let hash = bcrypt::hash(&long, 4).unwrap();
    source.execute(&format!("UPDATE users SET hashed_password = '{hash}' WHERE id = 1")).await;
    import(&backend, &source, &[]).await;
    let app = TestApp::new(&backend).await;
    let log_in = async |password: &str| {
        let body = json!({"username": "ada", "password": password});
        app.post("/api/v1/users/login", body).send().await.status
    };
    assert_eq!(log_in(&long).await, 401);
    assert_eq!(log_in(&long[..72]).await, 200);
    let token = app.act("/api/v1/users/1/password-reset").key(MASTER).send().await.expect(201);
    let body = json!({"token": token["token"], "new_password": long});
    app.post("/api/v1/users/password-reset", body).send().await.expect(204);
    assert_eq!(log_in(&long).await, 200);
}
