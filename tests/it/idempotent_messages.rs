//! Idempotent creation of messages, batches and conversations: a repeated request with the same
//! `Idempotency-Key` replays the first response and creates nothing.

use crate::support::{Answer, Backend, Call, TestApp};
use chrono::TimeDelta;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

const CONVERSATIONS: &str = "/api/v1/conversations";
const FIELD: &str = "Idempotency-Key";
const REPLAYED: &str = "idempotency-replayed";
const ROWS: &str = "SELECT COUNT(*) FROM idempotency_keys";

fn messages(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}/messages")
}

fn batch(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}/messages/batch")
}

fn user_message(content: &str) -> Value {
    json!({"role": "user", "content": content})
}

/// A server with an admin key, user Alice with a session, and a conversation in which she
/// participates.
struct Fixture {
    app: TestApp,
    key: String,
    alice: i64,
    as_alice: String,
    id: i64,
}

impl Fixture {
    async fn new(backend: &Backend) -> Self {
        let app = TestApp::new(backend).await;
        let key = app.admin().await;
        let alice = app.user("alice").await;
        let as_alice = app.session_of(alice).await;
        let id = app.conversation(&key, &[alice]).await;
        Self { app, key, alice, as_alice, id }
    }

    /// Path and body of each request that accepts an idempotency key.
    fn requests(&self) -> [(String, Value); 3] {
        let three = json!({"messages": [user_message("a"), user_message("b"), user_message("c")]});
        let new = json!({"title": "new", "participant_usernames": ["alice"]});
        [
            (messages(self.id), user_message("hello")),
            (batch(self.id), three),
            (CONVERSATIONS.to_owned(), new),
        ]
    }

    fn send(&self, (path, body): &(String, Value), idempotency_key: &str) -> Call {
        self.app.post(path, body.clone()).header(FIELD, idempotency_key)
    }

    /// The numbers of messages, conversations and idempotency records.
    async fn counts(&self) -> (i64, i64, i64) {
        let messages = self.app.number("SELECT COUNT(*) FROM messages").await;
        let conversations = self.app.number("SELECT COUNT(*) FROM conversations").await;
        (messages, conversations, self.app.number(ROWS).await)
    }
}

/// Asserts that the request created something; returns the body.
#[track_caller]
fn created(answer: Answer) -> Value {
    assert_eq!(answer.header(REPLAYED), None);
    answer.expect(201)
}

/// Asserts that the response is a replay of an earlier request; returns the body.
#[track_caller]
fn replayed(answer: Answer) -> Value {
    assert_eq!((answer.status, answer.header(REPLAYED)), (201, Some("true")), "{}", answer.text);
    answer.body
}

#[apply(on_both!)]
async fn a_repeat_returns_the_same_response_marked_as_replayed(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for request in fixture.requests() {
        let first = created(fixture.send(&request, "a").key(&fixture.key).send().await);
        let counts = fixture.counts().await;
        for _ in 0..3 {
            fixture.app.advance(TimeDelta::minutes(1));
            let repeat = fixture.send(&request, "a").key(&fixture.key).send().await;
            let tag = first["version"].as_i64().map(|version| format!("\"{version}\""));
            assert_eq!(repeat.header("etag"), tag.as_deref());
            assert_eq!(replayed(repeat), first);
        }
        // A trailing slash does not make it a different route.
        let slash = fixture.app.post(&format!("{}/", request.0), request.1.clone());
        assert_eq!(replayed(slash.key(&fixture.key).header(FIELD, "a").send().await), first);
        assert_eq!(fixture.counts().await, counts);
        // A different idempotency key, or none, creates something new.
        let other = created(fixture.send(&request, "b").key(&fixture.key).send().await);
        let without =
            fixture.app.post(&request.0, request.1.clone()).key(&fixture.key).send().await;
        assert!(created(without) != other && other != first);
    }
    assert_eq!(fixture.counts().await, (3 + 9, 1 + 3, 6));
}

#[apply(on_both!)]
async fn a_repeat_returns_the_current_state_of_what_it_created(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let [one, three, conversation] = fixture.requests();
    let first = created(fixture.send(&one, "a").key(&fixture.key).send().await);
    let path = format!("{}/{}", messages(fixture.id), first["id"]);
    let edit = fixture.app.patch(&path, json!({"content": "edited", "metadata": {"a": 1}}));
    let edited = edit.key(&fixture.key).send().await.expect(200);
    let repeat = fixture.send(&one, "a").key(&fixture.key).send().await;
    assert_eq!(repeat.header("etag"), Some("\"2\""));
    assert_eq!(replayed(repeat), edited);
    fixture.app.delete(&path).key(&fixture.key).send().await.expect(204);
    let repeat = replayed(fixture.send(&one, "a").key(&fixture.key).send().await);
    assert!(repeat["content"] == "" && repeat["deleted_at"].is_string(), "{repeat}");

    let mut appended = created(fixture.send(&three, "a").key(&fixture.key).send().await);
    created(
        fixture
            .app
            .post(&messages(fixture.id), user_message("after it"))
            .key(&fixture.key)
            .send()
            .await,
    );
    let path = format!("{}/{}", messages(fixture.id), appended[1]["id"]);
    let edit = fixture.app.patch(&path, json!({"content": "edited"})).key(&fixture.key);
    appended[1] = edit.send().await.expect(200);
    assert_eq!(replayed(fixture.send(&three, "a").key(&fixture.key).send().await), appended);

    let new = created(fixture.send(&conversation, "a").key(&fixture.key).send().await);
    let id = new["id"].as_i64().unwrap();
    let renamed = fixture.app.put(&format!("{CONVERSATIONS}/{id}"), json!({"title": "renamed"}));
    renamed.key(&fixture.key).send().await.expect(200);
    created(fixture.app.post(&messages(id), user_message("x")).key(&fixture.key).send().await);
    let repeat = replayed(fixture.send(&conversation, "a").key(&fixture.key).send().await);
    assert_eq!((&repeat["id"], &repeat["title"]), (&json!(id), &json!("renamed")));
    assert_eq!(
        (&repeat["message_count"], &repeat["messages_truncated"]),
        (&json!(1), &json!(true))
    );
}

#[apply(on_both!)]
async fn a_different_body_with_the_same_key_is_refused(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for request in fixture.requests() {
        let first = created(fixture.send(&request, "a").key(&fixture.key).send().await);
        let mut other = request.clone();
        other.1 = match &request.1["messages"] {
            Value::Null if request.0 == CONVERSATIONS => json!({"title": "other"}),
            Value::Null => user_message("other"),
            _ => json!({"messages": [user_message("a"), user_message("b")]}),
        };
        let refused = fixture.send(&other, "a").key(&fixture.key).send().await;
        refused.invalid(&["header.Idempotency-Key"]);
        let long = fixture.send(&request, &"x".repeat(256)).key(&fixture.key).send().await;
        long.invalid(&["header.Idempotency-Key"]);
        let twice = fixture.send(&request, "a").header(FIELD, "b").key(&fixture.key).send().await;
        twice.invalid(&["header.Idempotency-Key"]);
        assert_eq!(replayed(fixture.send(&request, "a").key(&fixture.key).send().await), first);
    }
    assert_eq!(fixture.counts().await, (4, 2, 3));
}

#[apply(on_both!)]
async fn idempotency_keys_are_scoped_to_the_credential_and_the_conversation(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let (second, _) = fixture.app.key(&fixture.key, "write").await;
    let bob = fixture.app.user("bob").await;
    let as_bob = fixture.app.session_of(bob).await;
    let path = format!("{CONVERSATIONS}/{}/participants", fixture.id);
    fixture.app.post(&path, json!({"user_id": bob})).key(&fixture.key).send().await.expect(201);
    // Each of two keys and two users has its own idempotency records.
    for request in fixture.requests() {
        for round in 0..2 {
            let call = || fixture.send(&request, "a");
            let calls = [
                call().key(&fixture.key),
                call().session(&fixture.as_alice),
                call().key(&second),
                call().session(&as_bob),
            ];
            for call in calls {
                let answer = call.send().await;
                let _ = if round == 0 { created(answer) } else { replayed(answer) };
            }
        }
    }
    assert_eq!(fixture.counts().await, (4 + 12, 1 + 4, 12));
    // In another conversation, the same key creates another message.
    let other = fixture.app.conversation(&fixture.key, &[]).await;
    let message = created(
        fixture.send(&(messages(other), user_message("hello")), "a").key(&fixture.key).send().await,
    );
    assert_eq!((&message["conversation_id"], &message["seq"]), (&json!(other), &json!(1)));
}

#[apply(on_both!)]
async fn all_sessions_of_a_user_share_idempotency_keys(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for request in fixture.requests() {
        let first = created(fixture.send(&request, "a").session(&fixture.as_alice).send().await);
        let later = fixture.app.session_of(fixture.alice).await;
        assert_eq!(replayed(fixture.send(&request, "a").session(&later).send().await), first);
    }
}

#[apply(on_both!)]
async fn of_40_concurrent_requests_one_creates_and_the_others_replay(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let mut expected = (0, 1, 0);
    for (request, messages, conversations) in
        fixture.requests().into_iter().zip([(1, 0), (3, 0), (0, 1)]).map(|(r, (m, c))| (r, m, c))
    {
        for round in 0..3 {
            let idempotency_key = format!("round-{round}");
            let as_user = round == 1;
            let call = || {
                let call = fixture.send(&request, &idempotency_key);
                if as_user { call.session(&fixture.as_alice) } else { call.key(&fixture.key) }
            };
            let answers = fixture.app.send_concurrently(40, call).await;
            let (new, repeats): (Vec<_>, Vec<_>) =
                answers.into_iter().partition(|answer| answer.header(REPLAYED).is_none());
            assert_eq!((new.len(), repeats.len()), (1, 39));
            let first = created(new.into_iter().next().unwrap());
            for repeat in repeats {
                assert_eq!(replayed(repeat), first);
            }
            expected = (expected.0 + messages, expected.1 + conversations, expected.2 + 1);
            assert_eq!(fixture.counts().await, expected);
        }
    }
}

#[apply(on_both!)]
async fn a_failed_request_leaves_no_idempotency_record(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let bob = fixture.app.user("bob").await;
    let by_bob = json!({"role": "user", "content": "hello", "user_id": bob});
    let requests = [
        (messages(fixture.id), by_bob.clone()),
        (batch(fixture.id), json!({"messages": [user_message("a"), by_bob]})),
        (CONVERSATIONS.to_owned(), json!({"participant_usernames": ["carol"]})),
    ];
    for (request, status) in requests.iter().zip([403, 403, 422]) {
        for _ in 0..2 {
            fixture.send(request, "a").key(&fixture.key).send().await.expect(status);
        }
    }
    for (path, status) in [(messages(999), 404), (batch(999), 404)] {
        let body = if status == 404 && path.ends_with("batch") {
            json!({"messages": [user_message("x")]})
        } else {
            user_message("x")
        };
        fixture.send(&(path, body), "a").key(&fixture.key).send().await.expect(status);
    }
    fixture
        .send(&(messages(fixture.id), user_message("")), "a")
        .key(&fixture.key)
        .send()
        .await
        .expect(422);
    fixture
        .send(&(messages(fixture.id), json!({"role": "x", "content": "x"})), "a")
        .key(&fixture.key)
        .send()
        .await
        .expect(400);
    assert_eq!(fixture.counts().await, (0, 1, 0));
    // After the cause is fixed, the same requests succeed, and only once.
    fixture.app.user("carol").await;
    let path = format!("{CONVERSATIONS}/{}/participants", fixture.id);
    fixture.app.post(&path, json!({"user_id": bob})).key(&fixture.key).send().await.expect(201);
    for request in &requests {
        let first = created(fixture.send(request, "a").key(&fixture.key).send().await);
        assert_eq!(replayed(fixture.send(request, "a").key(&fixture.key).send().await), first);
    }
    assert_eq!(fixture.counts().await, (3, 2, 3));
    // The record is written in the same transaction: if the write fails, no record is stored.
    backend.execute("ALTER TABLE conversations RENAME TO hidden").await;
    for request in fixture.requests() {
        fixture.send(&request, "b").key(&fixture.key).send().await.expect(500);
    }
    backend.execute("ALTER TABLE hidden RENAME TO conversations").await;
    assert_eq!(fixture.counts().await, (3, 2, 3));
    for request in fixture.requests() {
        created(fixture.send(&request, "b").key(&fixture.key).send().await);
    }
}

#[apply(on_both!)]
async fn a_repeat_is_authorised_again(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let [one, three, conversation] = fixture.requests();
    let mut first = vec![];
    for request in [&one, &three, &conversation] {
        first.push(created(fixture.send(request, "a").session(&fixture.as_alice).send().await));
    }
    let new_id = first[2]["id"].as_i64().unwrap();
    for id in [fixture.id, new_id] {
        let path = format!("{CONVERSATIONS}/{id}/participants/{}", fixture.alice);
        fixture.app.delete(&path).session(&fixture.as_alice).send().await.expect(204);
    }
    for request in [&one, &three, &conversation] {
        let answer = fixture.send(request, "a").session(&fixture.as_alice).send().await;
        assert!(!answer.text.contains("hello"), "{}", answer.text);
        answer.refused(404, "Conversation not found");
    }
    for id in [fixture.id, new_id] {
        let path = format!("{CONVERSATIONS}/{id}/participants");
        let join = fixture.app.post(&path, json!({"user_id": fixture.alice})).key(&fixture.key);
        join.send().await.expect(201);
    }
    for (request, first) in [&one, &three].into_iter().zip(&first) {
        assert_eq!(
            replayed(fixture.send(request, "a").session(&fixture.as_alice).send().await),
            *first
        );
    }
    // A key that lost its write scope, and a key that was deactivated.
    let (key, id) = fixture.app.key(&fixture.key, "write").await;
    created(fixture.send(&one, "a").key(&key).send().await);
    let path = format!("/api/v1/api-keys/{id}");
    let weaken = fixture.app.patch(&path, json!({"scopes": "read"})).key(&fixture.key);
    weaken.send().await.expect(200);
    fixture.send(&one, "a").key(&key).send().await.expect(403);
    fixture.app.act(&format!("{path}/deactivate")).key(&fixture.key).send().await.expect(200);
    fixture.send(&one, "a").key(&key).send().await.expect(401);
}

#[apply(on_both!)]
async fn a_repeat_after_deletion_is_not_found(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let mut deleted = vec![fixture.id];
    for request in fixture.requests() {
        let first = created(fixture.send(&request, "a").key(&fixture.key).send().await);
        if request.0 == CONVERSATIONS {
            deleted.push(first["id"].as_i64().unwrap());
        }
    }
    for id in deleted {
        fixture
            .app
            .delete(&format!("{CONVERSATIONS}/{id}"))
            .key(&fixture.key)
            .send()
            .await
            .expect(204);
    }
    for request in fixture.requests() {
        let answer = fixture.send(&request, "a").key(&fixture.key).send().await;
        answer.refused(404, "Conversation not found");
    }
    assert_eq!(fixture.counts().await, (0, 0, 3));
}

#[apply(on_both!)]
async fn an_idempotency_record_expires_after_a_day(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for request in fixture.requests() {
        let first = created(fixture.send(&request, "a").key(&fixture.key).send().await);
        fixture.app.advance(TimeDelta::hours(24) - TimeDelta::minutes(1));
        assert_eq!(replayed(fixture.send(&request, "a").key(&fixture.key).send().await), first);
        fixture.app.advance(TimeDelta::minutes(2));
        let second = created(fixture.send(&request, "a").key(&fixture.key).send().await);
        assert_ne!(second, first);
        assert_eq!(replayed(fixture.send(&request, "a").key(&fixture.key).send().await), second);
    }
    assert_eq!(fixture.counts().await, (8, 3, 3));
}

/// Credential, method, path, key hash, body hash, id of the first resource, number of resources.
type Row = (String, String, String, Vec<u8>, Vec<u8>, i64, i64);

#[apply(on_both!)]
async fn an_idempotency_record_holds_no_content(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let mut expected = vec![];
    for (request, count) in fixture.requests().into_iter().zip([1, 3, 1]) {
        let answer = created(fixture.send(&request, "a").session(&fixture.as_alice).send().await);
        let first = if answer.is_array() { &answer[0] } else { &answer };
        expected.push((
            format!("user:{}", fixture.alice),
            "POST".to_owned(),
            request.0,
            Sha256::digest("a").to_vec(),
            Sha256::digest(request.1.to_string()).to_vec(),
            first["id"].as_i64().unwrap(),
            count,
        ));
    }
    let mut rows: Vec<Row> = fixture
        .app
        .rows(
            "SELECT credential, method, path, idempotency_key, request_hash, resource_id, \
             resource_count FROM idempotency_keys",
        )
        .await;
    rows.sort();
    expected.sort();
    assert_eq!(rows, expected);
}

#[apply(on_both!)]
async fn retrying_after_a_dropped_connection_creates_one_message(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let request = &fixture.requests()[0];
    let body = request.1.to_string();
    for n in 0..30 {
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {}\r\n{FIELD}: {n}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            request.0,
            fixture.key,
            body.len()
        );
        let mut stream = TcpStream::connect(fixture.app.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may have received none, part or all of the request by now.
        sleep(Duration::from_micros(n * 200)).await;
        drop(stream);
        let repeat =
            fixture.send(request, &n.to_string()).key(&fixture.key).send().await.expect(201);
        assert_eq!(repeat["seq"], n + 1);
    }
    // No write happens after the last response.
    sleep(Duration::from_millis(200)).await;
    assert_eq!(fixture.counts().await, (30, 1, 30));
}
