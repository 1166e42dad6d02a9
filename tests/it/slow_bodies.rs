//! Slow bodies: the key is checked again after a slow body has arrived.

use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const KEYS: &str = "/api/v1/api-keys";

/// A request whose body is not yet complete.
struct Halfway {
    stream: TcpStream,
    rest: String,
}

impl Halfway {
    async fn begin(app: &TestApp, key: &str, method: &str, path: &str, body: &Value) -> Self {
        let body = body.to_string();
        let (start, rest) = body.split_at(2);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {key}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{start}",
            body.len()
        );
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A response to another request shows that the server has read the head of this one.
        app.get("/health").send().await.expect(200);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        Self { stream, rest: rest.to_owned() }
    }

    /// Sends the rest of the body; returns the status of the response.
    async fn end(mut self) -> u16 {
        self.stream.write_all(self.rest.as_bytes()).await.unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// Requests that change something, with the ids of a user and a conversation in their paths.
fn changes(user: i64, conversation: i64) -> [(&'static str, String, Value); 5] {
    [
        ("PUT", format!("/api/v1/users/{user}"), json!({"password": "hunter2 hunter2 hunter2"})),
        ("PUT", format!("/api/v1/conversations/{conversation}"), json!({"title": "late"})),
        ("POST", "/api/v1/conversations".to_owned(), json!({"title": "late"})),
        ("POST", KEYS.to_owned(), json!({"name": "late"})),
        ("PATCH", format!("{KEYS}/1"), json!({"name": "late"})),
    ]
}

/// All rows that the requests could change.
async fn state(app: &TestApp) -> Vec<(String,)> {
    app.rows(
        "SELECT password_hash FROM users UNION ALL SELECT title FROM conversations UNION ALL \
         SELECT name FROM api_keys WHERE name = 'late'",
    )
    .await
}

#[apply(on_both!)]
async fn a_key_revoked_while_the_body_arrives_changes_nothing(backend: Backend) {
    change_while_arriving(backend, json!({"is_active": false}), 401).await;
}

#[apply(on_both!)]
async fn a_key_that_lost_a_scope_while_the_body_arrives_changes_nothing(backend: Backend) {
    change_while_arriving(backend, json!({"scopes": "write"}), 409).await;
}

/// Applies `change` to the key of each request while its body arrives.
async fn change_while_arriving(backend: Backend, change: Value, expected: u16) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (user, conversation) = (app.user("ada").await, app.conversation(&admin, &[]).await);
    let before = state(&app).await;
    for (method, path, body) in changes(user, conversation) {
        let (key, id) = app.key(&admin, "admin").await;
        let halfway = Halfway::begin(&app, &key, method, &path, &body).await;
        let changed = app.patch(&format!("{KEYS}/{id}"), change.clone()).key(&admin);
        changed.send().await.expect(200);
        assert_eq!(halfway.end().await, expected, "{method} {path}");
        assert_eq!(state(&app).await, before, "{method} {path}");
    }
}

#[apply(on_both!)]
async fn an_unchanged_key_may_send_its_body_slowly(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, id) = app.key(&admin, "conversations:write").await;
    let body = json!({"title": "late"});
    let halfway = Halfway::begin(&app, &key, "POST", "/api/v1/conversations", &body).await;
    app.patch(&format!("{KEYS}/{id}"), json!({"name": "renamed"}))
        .key(&admin)
        .send()
        .await
        .expect(200);
    assert_eq!(halfway.end().await, 201);
}

#[apply(on_both!)]
async fn a_key_that_expires_while_the_body_arrives_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = json!({"name": "late", "expires_at": app.state.clock.now() + TimeDelta::hours(1)});
    let halfway = Halfway::begin(&app, &admin, "POST", KEYS, &body).await;
    app.advance(TimeDelta::hours(2));
    assert_eq!(halfway.end().await, 422);
}
