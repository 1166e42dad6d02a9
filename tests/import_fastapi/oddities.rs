//! Invalid rows: the import changes or skips each of them, and reports it.

use super::source::{Key, MASTER, PASSWORD, Source, user};
use super::{Imported, import};
use crate::support::{Backend, TestApp};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// The notes of the report, one line each.
fn notes(imported: &Imported) -> Vec<String> {
    let notes = imported.notes().into_iter();
    notes.map(|(table, id, kind, done)| format!("{table} {id} {kind} {done}")).collect()
}

async fn second(backend: &Backend) -> Source {
    let source = Source::second(backend.folder()).await;
    source.key(Key::default()).await;
    source
}

async fn log_in(app: &TestApp, body: Value) -> u16 {
    app.post("/api/v1/users/login", body).send().await.status
}

async fn names(app: &TestApp) -> Vec<(i64, String, String)> {
    app.rows("SELECT id, username, email FROM users ORDER BY id").await
}

#[apply(on_both!)]
async fn names_that_differ_only_in_case_stay_two_users(backend: Backend) {
    let source = second(&backend).await;
    // Two of them registered at the same time.
    for (id, name, email) in [
        (1, "ada", "ada@example.com"),
        (2, "ADA", "other@example.com"),
        (3, "bob", "Ada@Example.com"),
        (29, "cleo", "ADA@example.com"),
        (57, "ada-2", "last@example.com"),
    ] {
        source.execute(&user(id, name, email)).await;
    }
    let conversation =
        "INSERT INTO conversations VALUES (1, 'private', '2025-02-01', '2025-02-01 00:00:00');
        INSERT INTO conversation_participants VALUES (3, 1, '2025-02-01 00:00:00');
        INSERT INTO messages VALUES (1, 1, 3, 'user', 'of bob', '2025-02-01 00:00:00');";
    source.execute(conversation).await;
    let imported = import(&backend, &source, &[]).await;
    let expected = [
        "users 2 username_taken changed",
        "users 3 email_taken changed",
        "users 29 email_taken changed",
        "users 57 username_taken changed",
        "conversations 1 time_unreadable changed",
    ];
    assert_eq!(notes(&imported), expected);
    assert_eq!(imported.rows("users"), [5, 5, 0, 0]);
    let app = TestApp::new(&backend).await;
    let called = names(&app).await;
    let usernames: Vec<&str> = called.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(usernames, ["ada", "ADA-2", "bob", "cleo", "ada-2-57"]);
    assert!(called[2].2.starts_with("user-") && called[2].2.ends_with("@imported.invalid"));
    assert_ne!(called[2].2, called[3].2);
    // Every user can sign in with a unique name or email, and only to their own account.
    for body in [
        json!({"email": "ada@example.com", "password": PASSWORD}),
        json!({"email": "other@example.com", "password": PASSWORD}),
        json!({"username": "bob", "password": PASSWORD}),
        json!({"username": "ada-2-57", "password": PASSWORD}),
    ] {
        assert_eq!(log_in(&app, body).await, 200);
    }
    let conversation = app.get("/api/v1/conversations/1").key(MASTER).send().await.expect(200);
    assert_eq!(conversation["participants"][0]["id"], 3);
    assert_eq!(conversation["messages"][0]["user_id"], 3);
    // A user whose email an administrator sets is still recognized in the next import.
    let body = json!({"email": "bob@example.com"});
    app.put("/api/v1/users/3", body).key(MASTER).send().await.expect(200);
    app.stop().await.unwrap();
    let again = import(&backend, &source, &[]).await;
    assert_eq!(again.rows("users"), [5, 0, 5, 0]);
    assert_eq!(notes(&again), [""; 0]);
}

#[apply(on_both!)]
async fn names_that_break_the_rules_are_changed(backend: Backend) {
    let source = second(&backend).await;
    let long = "x".repeat(120);
    for (id, name, email) in [
        (1, "bob@example.com", "bob@example.com"),
        (2, " cleo ", "cleo@localhost"),
        (3, "", "dan"),
        (4, &long, ""),
        (5, &long[..110], "e\u{1b}@example.com"),
    ] {
        source.execute(&user(id, name, email)).await;
    }
    source
        .execute(
            "UPDATE users SET is_superuser = 1, full_name = 'Bob B.', is_active = 'x' WHERE id = 1",
        )
        .await;
    let imported = import(&backend, &source, &[]).await;
    let expected = [
        "users 1 username_mended changed",
        "users 1 flag_unreadable changed",
        "users 1 superuser kept",
        "users 2 email_odd kept",
        "users 2 username_mended changed",
        "users 3 email_mended changed",
        "users 3 username_mended changed",
        "users 4 email_mended changed",
        "users 4 username_mended changed",
        "users 5 email_mended changed",
        "users 5 username_mended changed",
        "users 5 username_taken changed",
    ];
    assert_eq!(notes(&imported), expected);
    assert!(!imported.output.contains('\u{1b}'), "what a terminal would obey");
    let app = TestApp::new(&backend).await;
    let called = names(&app).await;
    let usernames: Vec<&str> = called.iter().map(|(_, name, _)| name.as_str()).collect();
    let (short, shorter) = ("x".repeat(100), format!("{}-5", "x".repeat(98)));
    assert_eq!(usernames, ["bob_example.com", "cleo", "user-3", &short, &shorter]);
    assert_eq!(log_in(&app, json!({"email": "cleo@localhost", "password": PASSWORD})).await, 200);
    let bob = app.get("/api/v1/users/1").key(MASTER).send().await.expect(200);
    assert_eq!((&bob["is_superuser"], &bob["is_active"]), (&json!(true), &json!(false)));
    assert_eq!(bob["full_name"], "Bob B.");
    assert_eq!(bob["updated_at"], "2025-01-01T09:00:00.000000Z");
    app.stop().await.unwrap();
    assert_eq!(import(&backend, &source, &[]).await.rows("users"), [5, 0, 5, 0]);
}

#[apply(on_both!)]
async fn an_imported_user_is_not_merged_with_an_existing_user_of_the_same_name(backend: Backend) {
    // Registration is open: an attacker who registers the name first must not get the data of ada.
    let app = TestApp::new(&backend).await;
    let impostor = app.user("ada").await;
    app.stop().await.unwrap();
    let source = second(&backend).await;
    source.insert_users().await;
    source.insert_conversations().await;
    let imported = import(&backend, &source, &[]).await;
    let expected = [
        "users 1 email_taken changed",
        "users 1 username_taken changed",
        "users 1 renumbered changed",
    ];
    assert_eq!(notes(&imported)[..3], expected);
    assert!(imported.explanation("email_taken").contains(&format!("user {impostor}'s")));
    let app = TestApp::new(&backend).await;
    let token = app.login("ada").await;
    let own = app.get("/api/v1/conversations").session(&token).send().await.expect(200);
    assert_eq!(own, json!([]));
    assert_eq!(log_in(&app, json!({"username": "ada-1", "password": PASSWORD})).await, 200);
}

#[apply(on_both!)]
async fn a_user_with_an_unusable_password_hash_cannot_sign_in(backend: Backend) {
    let source = second(&backend).await;
    source.insert_users().await;
    let odd = "UPDATE users SET hashed_password = 'plain text' WHERE id = 1;
        UPDATE users SET hashed_password = '' WHERE id = 2;
        UPDATE users SET is_active = 0 WHERE id = 3;";
    source.execute(odd).await;
    let imported = import(&backend, &source, &[]).await;
    let expected = ["users 1 password_unknown changed", "users 2 password_unknown changed"];
    assert_eq!(notes(&imported), expected);
    assert!(!imported.report.to_string().contains("plain text"));
    let app = TestApp::new(&backend).await;
    for (name, password) in [("ada", "plain text"), ("bob", ""), ("cleo", PASSWORD)] {
        assert_eq!(
            log_in(&app, json!({"username": name, "password": password})).await,
            401,
            "{name}"
        );
    }
    assert_eq!(
        app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM users WHERE password_hash = 'plain text'")
            .await,
        0
    );
}

#[apply(on_both!)]
async fn messages_without_a_user_lose_their_author_and_such_participants_are_left_out(
    backend: Backend,
) {
    let source = second(&backend).await;
    source.insert_users().await;
    source.insert_conversations().await;
    let odd = "INSERT INTO messages VALUES
            (30, 99, 1, 'user', 'in no conversation', '2025-02-01 10:00:00.000000'),
            (31, 5, 88, 'user', 'of nobody', '2025-02-01 11:00:00.000000');
        INSERT INTO conversation_participants VALUES (88, 5, '2025-02-01 00:00:00'),
            (1, 99, '2025-02-01 00:00:00');";
    source.execute(odd).await;
    let imported = import(&backend, &source, &[]).await;
    let expected = [
        "conversation_participants 1 orphan left_out",
        "conversation_participants 88 orphan left_out",
        "messages 30 orphan left_out",
        "messages 31 unknown_user changed",
    ];
    assert_eq!(notes(&imported), expected);
    assert_eq!(imported.rows("messages"), [6, 5, 0, 1]);
    assert_eq!(imported.rows("conversation_participants"), [5, 3, 0, 2]);
    assert!(imported.output.lines().last().unwrap().contains(" 3 skipped"), "{}", imported.output);
    let app = TestApp::new(&backend).await;
    let conversation = app.get("/api/v1/conversations/5").key(MASTER).send().await.expect(200);
    let contents: Vec<_> = conversation["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["seq"].clone(), m["id"].clone()))
        .collect();
    let expected =
        [(1, 20), (2, 21), (3, 31), (4, 22), (5, 23)].map(|(seq, id)| (json!(seq), json!(id)));
    assert_eq!(contents, expected);
    assert_eq!(conversation["messages"][2]["user_id"], Value::Null);
}

#[apply(on_both!)]
async fn messages_of_a_deleted_user_are_not_attached_to_the_next_user_with_the_id(
    backend: Backend,
) {
    let source = second(&backend).await;
    source.insert_users().await;
    source.insert_conversations().await;
    // The original assigned bob's id to a user who registered later.
    let odd = "UPDATE users SET username = 'later', created_at = '2025-02-01 12:00:00.250000' WHERE id = 2";
    source.execute(odd).await;
    let imported = import(&backend, &source, &[]).await;
    assert_eq!(notes(&imported), ["messages 22 before_its_user changed"]);
    let app = TestApp::new(&backend).await;
    let conversation = app.get("/api/v1/conversations/5").key(MASTER).send().await.expect(200);
    assert_eq!(conversation["messages"][2]["user_id"], Value::Null);
    assert_eq!(conversation["messages"][3]["user_id"], 2);
}

#[apply(on_both!)]
async fn messages_are_ordered_by_time_and_id(backend: Backend) {
    let source = second(&backend).await;
    let rows =
        "INSERT INTO conversations VALUES (1, 'a', '2025-01-01 00:00:00', '2025-01-01 00:00:00'),
            (2, 'b', '2025-01-01 00:00:00', '2025-01-01 00:00:00');
        INSERT INTO messages VALUES
            (1, 1, NULL, 'user', 'last', '2025-02-01 10:00:00.000002'),
            (2, 2, NULL, 'user', 'second', '2025-02-01 10:00:00'),
            (3, 1, NULL, 'user', 'third', '2025-02-01 10:00:00.000001'),
            (4, 1, NULL, 'user', 'first', '2025-02-01T11:59:59+02:00'),
            (5, 2, NULL, 'user', 'first', '2025-01-31 10:00:00'),
            (6, 2, NULL, 'user', 'third', '2025-02-01 10:00:00'),
            (7, 1, NULL, 'user', 'second', '2025-02-01 10:00:00.000000');";
    source.execute(rows).await;
    import(&backend, &source, &[]).await;
    let app = TestApp::new(&backend).await;
    for (id, expected) in [(1, [4, 7, 3, 1].as_slice()), (2, &[5, 2, 6])] {
        let path = format!("/api/v1/conversations/{id}/messages");
        let messages = app.get(&path).key(MASTER).send().await.expect(200);
        let ids: Vec<i64> =
            messages.as_array().unwrap().iter().map(|m| m["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, expected, "conversation {id}");
    }
}

#[apply(on_both!)]
async fn messages_that_break_the_rules_are_kept_as_far_as_possible(backend: Backend) {
    let source = second(&backend).await;
    source.insert_users().await;
    let long = "ä".repeat(150_000);
    let rows = format!(
        "INSERT INTO conversations VALUES (1, '{}', '2025-02-01 00:00:00', '2025-02-01 00:00:00');
        INSERT INTO messages VALUES
            (1, 1, 1, 'user', '{long}', '2025-02-01 10:00:01'),
            (2, 1, 1, 'User ', 'a role in another case', '2025-02-01 10:00:02'),
            (3, 1, NULL, 'tool', 'another role', '2025-02-01 10:00:03'),
            (4, 1, 1, 'user', '', '2025-02-01 10:00:04'),
            (5, 1, 1, 'user', 'a' || char(0) || 'b', '2025-02-01 10:00:05'),
            (6, 1, 1, 'user', CAST(x'61ff62' AS TEXT), '2025-02-01 10:00:06'),
            (7, 1, 1, 'user', 'my key is {MASTER}, keep it', '2025-02-01 10:00:07'),
            (8, 1, 1, 'user', 'a key begins with octopus_', '2025-02-01 10:00:08');",
        "t".repeat(300)
    );
    source.execute(&rows).await;
    let imported = import(&backend, &source, &[]).await;
    let expected = [
        "conversations 1 long kept",
        "messages 1 long kept",
        "messages 2 role_mended changed",
        "messages 3 role_mended changed",
        "messages 5 text_mended changed",
        "messages 6 text_mended changed",
        "messages 7 key_inside kept",
    ];
    assert_eq!(notes(&imported), expected);
    assert!(!imported.output.contains(MASTER));
    let app = TestApp::new(&backend).await;
    let conversation = app.get("/api/v1/conversations/1").key(MASTER).send().await.expect(200);
    let messages = conversation["messages"].as_array().unwrap();
    let content = |n: usize| messages[n]["content"].as_str().unwrap();
    assert!(
        content(0) == long && conversation["title"].as_str().unwrap().len() == 300,
        "kept whole"
    );
    assert_eq!((&messages[1]["role"], &messages[2]["role"]), (&json!("user"), &json!("assistant")));
    assert_eq!(messages[2]["metadata"], json!({"original_role": "tool"}));
    assert_eq!((content(3), content(4), content(5)), ("", "a\u{fffd}b", "a\u{fffd}b"));
    let found =
        app.get("/api/v1/conversations/search?q=%22another+role%22").key(MASTER).send().await;
    assert_eq!(found.body.as_array().map(Vec::len), Some(1), "{}", found.text);
}

#[apply(on_both!)]
async fn unreadable_times_get_a_deterministic_substitute(backend: Backend) {
    let source = second(&backend).await;
    source.insert_users().await;
    source.insert_conversations().await;
    let odd = "UPDATE users SET created_at = 'once' WHERE id = 1;
        UPDATE users SET created_at = '', updated_at = 'x' WHERE id = 2;
        UPDATE conversations SET created_at = 'once upon a time' WHERE id = 6;
        UPDATE messages SET created_at = 'then' WHERE id = 21;";
    source.execute(odd).await;
    let imported = import(&backend, &source, &[]).await;
    let expected = [
        "users 1 time_unreadable changed",
        "users 2 time_unreadable changed",
        "conversations 6 time_unreadable changed",
        "messages 21 time_unreadable changed",
    ];
    assert_eq!(notes(&imported), expected);
    let app = TestApp::new(&backend).await;
    let user = async |id: i64| {
        app.get(&format!("/api/v1/users/{id}")).key(MASTER).send().await.expect(200)["created_at"]
            .clone()
    };
    assert_eq!(user(1).await, "2025-01-01T09:00:00.000000Z", "when it was changed first");
    assert_eq!(user(2).await, "1970-01-01T00:00:00.000000Z");
    let conversation = app.get("/api/v1/conversations/5").key(MASTER).send().await.expect(200);
    let first = &conversation["messages"][0];
    assert_eq!((&first["id"], &first["created_at"]), (&json!(21), &conversation["created_at"]));
    app.stop().await.unwrap();
    let again = import(&backend, &source, &[]).await;
    assert_eq!(again.rows("users"), [3, 0, 3, 0]);
    assert_eq!(again.rows("conversations"), [2, 0, 2, 0]);
}

#[apply(on_both!)]
async fn missing_and_additional_tables_and_columns_are_accepted(backend: Backend) {
    let source = Source { path: backend.folder().join("chat_conversations.db") };
    let tables = "
        CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL);
        CREATE TABLE notes (id INTEGER PRIMARY KEY);
        CREATE TABLE users (id INTEGER NOT NULL, email VARCHAR, username VARCHAR,
            hashed_password VARCHAR, colour VARCHAR, PRIMARY KEY (id));
        CREATE TABLE conversations (id INTEGER NOT NULL, PRIMARY KEY (id));
        CREATE TABLE messages (id INTEGER NOT NULL, conversation_id INTEGER, role VARCHAR,
            content TEXT, PRIMARY KEY (id));
        CREATE TABLE api_keys (id INTEGER NOT NULL, \"key\" VARCHAR, PRIMARY KEY (id));
        INSERT INTO users VALUES (1, 'ada@example.com', 'ada', 'x', 'red');
        INSERT INTO conversations VALUES (1);
        INSERT INTO messages VALUES (1, 1, 'user', 'one'), (2, 1, 'user', NULL), (3, NULL, 'user', 'x');";
    source.execute(tables).await;
    source.execute(&format!("INSERT INTO api_keys VALUES (1, '{MASTER}')")).await;
    let imported = import(&backend, &source, &["--keep-effective-access"]).await;
    assert_eq!(imported.report["summary"]["other_tables"], json!(["notes"]));
    assert_eq!(imported.rows("messages"), [3, 2, 0, 1]);
    let app = TestApp::new(&backend).await;
    let conversation = app.get("/api/v1/conversations/1").key(MASTER).send().await.expect(200);
    let contents: Vec<_> =
        conversation["messages"].as_array().unwrap().iter().map(|m| m["content"].clone()).collect();
    assert_eq!(contents, ["one", ""]);
    app.stop().await.unwrap();
    let again = import(&backend, &source, &["--keep-effective-access"]).await;
    assert_eq!(again.rows("messages"), [3, 0, 2, 1]);
}

#[apply(on_both!)]
async fn times_out_of_range_are_replaced(backend: Backend) {
    let source = second(&backend).await;
    source.insert_users().await;
    source.insert_conversations().await;
    let odd = "UPDATE users SET updated_at = '2199-01-01 00:00:00' WHERE id = 2;
        UPDATE conversations SET created_at = '1960-01-01 00:00:00' WHERE id = 6;
        UPDATE messages SET created_at = '0000-01-01 00:00:00' WHERE id = 20;
        UPDATE messages SET created_at = '1969-12-31 23:59:59' WHERE id = 21;
        UPDATE messages SET created_at = '9999-12-31 23:59:59' WHERE id = 23;";
    source.execute(odd).await;
    let imported = import(&backend, &source, &[]).await;
    let expected = [
        "conversations 6 time_unreadable changed",
        "messages 20 time_unreadable changed",
        "messages 21 time_unreadable changed",
        "messages 23 time_unreadable changed",
    ];
    assert_eq!(notes(&imported), expected);
    let app = TestApp::new(&backend).await;
    let get = async |path: &str| app.get(path).key(MASTER).send().await.expect(200);
    let user = get("/api/v1/users/2").await;
    assert_eq!(user["updated_at"], user["created_at"]);
    let conversation = get("/api/v1/conversations/5").await;
    let messages = conversation["messages"].as_array().unwrap();
    let times = [20, 21, 23].map(|id| {
        let message = messages.iter().find(|message| message["id"] == id).expect("the message");
        message["created_at"].clone()
    });
    assert_eq!([&times[0], &times[1]], [&conversation["created_at"]; 2]);
    let last: DateTime<Utc> = times[2].as_str().unwrap().parse().unwrap();
    let age = app.state.clock.now() - last;
    assert!(age >= TimeDelta::zero() && age < TimeDelta::minutes(5), "{last}");
    assert_eq!(conversation["last_message_at"], times[2]);
    app.stop().await.unwrap();
    let again = import(&backend, &source, &[]).await;
    assert_eq!(again.rows("users"), [3, 0, 3, 0]);
    assert_eq!(again.rows("conversations"), [2, 0, 2, 0]);
}
