//! Audit entries for operations of keys on user data, and for security events of users.

use super::{LOGS, get};
use crate::support::{Backend, TestApp};
use octopus::features::api_keys::service::record_failures;
use serde_json::{Value, json};

/// Action, actor and details of the entries after the first `n`, oldest first.
async fn entries(app: &TestApp, admin: &str, n: usize) -> Vec<(String, String, Value)> {
    let logs = get(app, admin, &format!("{LOGS}?order=asc&limit=1000")).await;
    let entries = logs.as_array().unwrap().iter().skip(n);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    entries
        .map(|log| (text(&log["action"]), text(&log["performed_by"]), log["details"].clone()))
        .collect()
}

fn entry(action: &str, by: &str, details: Value) -> (String, String, Value) {
    (action.to_owned(), by.to_owned(), details)
}

#[apply(on_both!)]
async fn operations_of_a_key_on_user_data_are_recorded(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    let body =
        json!({"email": "b@example.com", "username": "bob", "password": "correct horse battery"});
    let bob = app.post("/api/v1/users", body).key(&admin).send().await.expect(201)["id"].clone();
    let rename = json!({"username": "lovelace", "full_name": "Ada L."});
    app.put(&format!("/api/v1/users/{ada}"), rename).key(&admin).send().await.expect(200);
    let conversation = app.conversation(&admin, &[ada]).await;
    let path = format!("/api/v1/conversations/{conversation}");
    let post = async |body: Value| {
        let sent = app.post(&format!("{path}/messages"), body).key(&admin).send().await;
        sent.expect(201)["id"].as_i64().unwrap()
    };
    let user_message = post(json!({"role": "user", "content": "mine", "user_id": ada})).await;
    let program_message = post(json!({"role": "assistant", "content": "a"})).await;
    for id in [user_message, program_message] {
        let edit = json!({"content": "rewritten"});
        app.patch(&format!("{path}/messages/{id}"), edit).key(&admin).send().await.expect(200);
        app.delete(&format!("{path}/messages/{id}")).key(&admin).send().await.expect(204);
    }
    for export in [format!("{path}/export"), format!("/api/v1/users/{ada}/export")] {
        app.get(&export).key(&admin).send().await.expect(200);
    }
    app.get("/api/v1/conversations/999/export").key(&admin).send().await.expect(404);
    app.delete(&path).key(&admin).send().await.expect(204);
    let message = |version: i64| json!({"conversation_id": conversation, "message_id": user_message, "user_id": ada, "version": version});
    let expected = [
        entry("register", "key", json!({"user_id": bob, "username": "bob"})),
        entry(
            "update_user",
            "key",
            json!({"user_id": ada, "username": "lovelace", "changed": ["username", "full_name"]}),
        ),
        entry("edit_message", "key", message(2)),
        entry("delete_message", "key", message(2)),
        entry("export", "key", json!({"conversation_id": conversation})),
        entry("export", "key", json!({"user_id": ada})),
        entry(
            "delete_conversation",
            "key",
            json!({"conversation_id": conversation, "messages": 2}),
        ),
    ];
    assert_eq!(entries(&app, &admin, 1).await, expected);
    let logs = get(&app, &admin, LOGS).await.to_string();
    assert!(!logs.contains("rewritten") && !logs.contains("mine"), "no content is recorded");
}

#[apply(on_both!)]
async fn operations_of_users_create_no_entry_for_a_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    let conversation = app.conversation(&admin, &[ada]).await;
    let token = app.session_of(ada).await;
    let path = format!("/api/v1/conversations/{conversation}");
    let body = json!({"role": "user", "content": "mine"});
    let sent = app.post(&format!("{path}/messages"), body).session(&token).send().await.expect(201);
    let message = format!("{path}/messages/{}", sent["id"]);
    app.patch(&message, json!({"content": "other"})).session(&token).send().await.expect(200);
    app.delete(&message).session(&token).send().await.expect(204);
    app.get(&format!("{path}/export")).session(&token).send().await.expect(200);
    app.get("/api/v1/users/me/export").session(&token).send().await.expect(200);
    assert_eq!(entries(&app, &admin, 1).await, []);
}

#[apply(on_both!)]
async fn an_imported_conversation_is_recorded_with_it(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let lines = concat!(
        r#"{"type":"conversation","external_id":"a:1","title":"t","created_at":"2026-01-31T09:30:00Z","participants":[]}"#,
        "\n",
        r#"{"type":"message","role":"user","content":"Hello!","created_at":"2026-01-31T09:31:00Z"}"#,
        "\n"
    );
    for _ in 0..2 {
        let call = app.act("/api/v1/conversations/import").key(&admin);
        let call = call.header("Content-Type", "application/x-ndjson").body(lines);
        call.send().await.expect(200);
    }
    let found = entries(&app, &admin, 1).await;
    assert_eq!(found.len(), 1, "the second is skipped: {found:?}");
    let (action, by, details) = &found[0];
    assert_eq!((&**action, &**by), ("import_conversation", "key"));
    assert_eq!((&details["external_id"], &details["messages"]), (&json!("a:1"), &json!(1)));
}

#[apply(on_both!)]
async fn registrations_sign_ins_and_bad_bootstrap_tokens_are_counted(backend: Backend) {
    let variables = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("BOOTSTRAP_TOKEN", "a token that nobody guesses: 32 bytes"),
    ];
    let app = TestApp::with(&backend, &variables).await;
    for _ in 0..2 {
        let call = app.act("/bootstrap").header("Octopus-Bootstrap-Token", "wrong");
        call.send().await.expect(403);
    }
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    for _ in 0..3 {
        app.login("ada").await;
    }
    assert_eq!(entries(&app, &admin, 1).await, [], "none in the request itself");
    record_failures(&app.state).await.unwrap();
    let expected = [
        entry("auth_failed", "anonymous", json!({"reason": "bootstrap_token_wrong", "count": 2})),
        entry("register", "anonymous", json!({"user_id": ada, "count": 1})),
        entry("sign_in", "user", json!({"user_id": ada, "count": 3})),
    ];
    assert_eq!(entries(&app, &admin, 1).await, expected);
    // A minute has at most a hundred entries and one for all others.
    for user in 0..250 {
        app.state.sign_ins.note([192, 0, 2, 1].into(), user);
    }
    record_failures(&app.state).await.unwrap();
    let found = entries(&app, &admin, 4).await;
    assert_eq!(found.len(), 101);
    assert_eq!(found[100], entry("sign_in", "user", json!({"user_id": null, "count": 150})));
}
