//! Messages, batches and conversations that are sent again: what happened once does not happen twice.

use crate::support::{Answer, Backend, Call, TestApp, tests};
use chrono::TimeDelta;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

tests!(on_both: [
    a_repeat_answers_the_same_and_says_so,
    a_repeat_shows_what_was_made_as_it_is_now,
    another_body_is_no_repeat,
    others_and_other_conversations_have_their_own,
    the_sessions_of_a_user_are_one_person,
    of_40_at_once_one_happens_and_the_others_repeat_it,
    what_failed_is_not_remembered,
    a_repeat_is_authorised_anew,
    what_is_gone_is_not_found_by_a_repeat,
    a_day_later_it_happens_again,
    what_is_remembered_holds_no_content,
    who_hung_up_and_sends_it_again_has_said_it_once,
]);

const TALKS: &str = "/api/v1/conversations";
const FIELD: &str = "Idempotency-Key";
const REPLAYED: &str = "idempotency-replayed";
const ROWS: &str = "SELECT COUNT(*) FROM idempotency_keys";

fn messages(id: i64) -> String {
    format!("{TALKS}/{id}/messages")
}

fn batch(id: i64) -> String {
    format!("{TALKS}/{id}/messages/batch")
}

fn says(content: &str) -> Value {
    json!({"role": "user", "content": content})
}

/// A server with an admin key, Alice, her session and a conversation of hers.
struct Talk {
    app: TestApp,
    key: String,
    alice: i64,
    as_alice: String,
    id: i64,
}

impl Talk {
    async fn new(backend: &Backend) -> Self {
        let app = TestApp::new(backend).await;
        let key = app.admin().await;
        let alice = app.user("alice").await;
        let as_alice = app.session_of(alice).await;
        let id = app.conversation(&key, &[alice]).await;
        Self { app, key, alice, as_alice, id }
    }

    /// Each request that can be sent again: where, and of what.
    fn requests(&self) -> [(String, Value); 3] {
        let three = json!({"messages": [says("a"), says("b"), says("c")]});
        let new = json!({"title": "new", "participant_usernames": ["alice"]});
        [(messages(self.id), says("hello")), (batch(self.id), three), (TALKS.to_owned(), new)]
    }

    fn send(&self, (path, body): &(String, Value), once: &str) -> Call {
        self.app.post(path, body.clone()).header(FIELD, once)
    }

    /// How many messages, conversations and remembered requests there are.
    async fn counts(&self) -> (i64, i64, i64) {
        let messages = self.app.number("SELECT COUNT(*) FROM messages").await;
        let conversations = self.app.number("SELECT COUNT(*) FROM conversations").await;
        (messages, conversations, self.app.number(ROWS).await)
    }
}

/// What was made, by this request for the first time.
#[track_caller]
fn made(answer: Answer) -> Value {
    assert_eq!(answer.header(REPLAYED), None);
    answer.expect(201)
}

/// What was made by the same request before.
#[track_caller]
fn replayed(answer: Answer) -> Value {
    assert_eq!((answer.status, answer.header(REPLAYED)), (201, Some("true")), "{}", answer.text);
    answer.body
}

async fn a_repeat_answers_the_same_and_says_so(backend: Backend) {
    let talk = Talk::new(&backend).await;
    for request in talk.requests() {
        let first = made(talk.send(&request, "a").key(&talk.key).send().await);
        let counts = talk.counts().await;
        for _ in 0..3 {
            talk.app.advance(TimeDelta::minutes(1));
            let again = talk.send(&request, "a").key(&talk.key).send().await;
            let tag = first["version"].as_i64().map(|version| format!("\"{version}\""));
            assert_eq!(again.header("etag"), tag.as_deref());
            assert_eq!(replayed(again), first);
        }
        // With and without a slash, it is one route.
        let slash = talk.app.post(&format!("{}/", request.0), request.1.clone());
        assert_eq!(replayed(slash.key(&talk.key).header(FIELD, "a").send().await), first);
        assert_eq!(talk.counts().await, counts);
        // Another one, and none at all, are new.
        let other = made(talk.send(&request, "b").key(&talk.key).send().await);
        let without = talk.app.post(&request.0, request.1.clone()).key(&talk.key).send().await;
        assert!(made(without) != other && other != first);
    }
    assert_eq!(talk.counts().await, (3 + 9, 1 + 3, 6));
}

async fn a_repeat_shows_what_was_made_as_it_is_now(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let [one, three, conversation] = talk.requests();
    let first = made(talk.send(&one, "a").key(&talk.key).send().await);
    let path = format!("{}/{}", messages(talk.id), first["id"]);
    let edit = talk.app.patch(&path, json!({"content": "edited", "metadata": {"a": 1}}));
    let edited = edit.key(&talk.key).send().await.expect(200);
    let again = talk.send(&one, "a").key(&talk.key).send().await;
    assert_eq!(again.header("etag"), Some("\"2\""));
    assert_eq!(replayed(again), edited);
    talk.app.delete(&path).key(&talk.key).send().await.expect(204);
    let again = replayed(talk.send(&one, "a").key(&talk.key).send().await);
    assert!(again["content"] == "" && again["deleted_at"].is_string(), "{again}");

    let mut appended = made(talk.send(&three, "a").key(&talk.key).send().await);
    made(talk.app.post(&messages(talk.id), says("after it")).key(&talk.key).send().await);
    let path = format!("{}/{}", messages(talk.id), appended[1]["id"]);
    let edit = talk.app.patch(&path, json!({"content": "edited"})).key(&talk.key);
    appended[1] = edit.send().await.expect(200);
    assert_eq!(replayed(talk.send(&three, "a").key(&talk.key).send().await), appended);

    let begun = made(talk.send(&conversation, "a").key(&talk.key).send().await);
    let id = begun["id"].as_i64().unwrap();
    let renamed = talk.app.put(&format!("{TALKS}/{id}"), json!({"title": "renamed"}));
    renamed.key(&talk.key).send().await.expect(200);
    made(talk.app.post(&messages(id), says("x")).key(&talk.key).send().await);
    let again = replayed(talk.send(&conversation, "a").key(&talk.key).send().await);
    assert_eq!((&again["id"], &again["title"]), (&json!(id), &json!("renamed")));
    assert_eq!((&again["message_count"], &again["messages_truncated"]), (&json!(1), &json!(true)));
}

async fn another_body_is_no_repeat(backend: Backend) {
    let talk = Talk::new(&backend).await;
    for request in talk.requests() {
        let first = made(talk.send(&request, "a").key(&talk.key).send().await);
        let mut other = request.clone();
        other.1 = match &request.1["messages"] {
            Value::Null if request.0 == TALKS => json!({"title": "other"}),
            Value::Null => says("other"),
            _ => json!({"messages": [says("a"), says("b")]}),
        };
        let refused = talk.send(&other, "a").key(&talk.key).send().await;
        refused.invalid(&["header.Idempotency-Key"]);
        let long = talk.send(&request, &"x".repeat(256)).key(&talk.key).send().await;
        long.invalid(&["header.Idempotency-Key"]);
        let twice = talk.send(&request, "a").header(FIELD, "b").key(&talk.key).send().await;
        twice.invalid(&["header.Idempotency-Key"]);
        assert_eq!(replayed(talk.send(&request, "a").key(&talk.key).send().await), first);
    }
    assert_eq!(talk.counts().await, (4, 2, 3));
}

async fn others_and_other_conversations_have_their_own(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let (second, _) = talk.app.key(&talk.key, "write").await;
    let bob = talk.app.user("bob").await;
    let as_bob = talk.app.session_of(bob).await;
    let path = format!("{TALKS}/{}/participants", talk.id);
    talk.app.post(&path, json!({"user_id": bob})).key(&talk.key).send().await.expect(201);
    // Key 1, user 1, key 2 and user 2: each has said it once.
    for request in talk.requests() {
        for round in 0..2 {
            let call = || talk.send(&request, "a");
            let calls = [
                call().key(&talk.key),
                call().session(&talk.as_alice),
                call().key(&second),
                call().session(&as_bob),
            ];
            for call in calls {
                let answer = call.send().await;
                let _ = if round == 0 { made(answer) } else { replayed(answer) };
            }
        }
    }
    assert_eq!(talk.counts().await, (4 + 12, 1 + 4, 12));
    // And in another conversation it is another message.
    let other = talk.app.conversation(&talk.key, &[]).await;
    let said = made(talk.send(&(messages(other), says("hello")), "a").key(&talk.key).send().await);
    assert_eq!((&said["conversation_id"], &said["seq"]), (&json!(other), &json!(1)));
}

async fn the_sessions_of_a_user_are_one_person(backend: Backend) {
    let talk = Talk::new(&backend).await;
    for request in talk.requests() {
        let first = made(talk.send(&request, "a").session(&talk.as_alice).send().await);
        let later = talk.app.session_of(talk.alice).await;
        assert_eq!(replayed(talk.send(&request, "a").session(&later).send().await), first);
    }
}

async fn of_40_at_once_one_happens_and_the_others_repeat_it(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let mut expected = (0, 1, 0);
    for (request, messages, conversations) in
        talk.requests().into_iter().zip([(1, 0), (3, 0), (0, 1)]).map(|(r, (m, c))| (r, m, c))
    {
        for round in 0..3 {
            let once = format!("round-{round}");
            let as_user = round == 1;
            let call = || {
                let call = talk.send(&request, &once);
                if as_user { call.session(&talk.as_alice) } else { call.key(&talk.key) }
            };
            let answers = talk.app.at_once(40, call).await;
            let (new, repeats): (Vec<_>, Vec<_>) =
                answers.into_iter().partition(|answer| answer.header(REPLAYED).is_none());
            assert_eq!((new.len(), repeats.len()), (1, 39));
            let first = made(new.into_iter().next().unwrap());
            for repeat in repeats {
                assert_eq!(replayed(repeat), first);
            }
            expected = (expected.0 + messages, expected.1 + conversations, expected.2 + 1);
            assert_eq!(talk.counts().await, expected);
        }
    }
}

async fn what_failed_is_not_remembered(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let bob = talk.app.user("bob").await;
    let by_bob = json!({"role": "user", "content": "hello", "user_id": bob});
    let requests = [
        (messages(talk.id), by_bob.clone()),
        (batch(talk.id), json!({"messages": [says("a"), by_bob]})),
        (TALKS.to_owned(), json!({"participant_usernames": ["carol"]})),
    ];
    for (request, status) in requests.iter().zip([403, 403, 422]) {
        for _ in 0..2 {
            talk.send(request, "a").key(&talk.key).send().await.expect(status);
        }
    }
    for (path, status) in [(messages(999), 404), (batch(999), 404)] {
        let body = if status == 404 && path.ends_with("batch") {
            json!({"messages": [says("x")]})
        } else {
            says("x")
        };
        talk.send(&(path, body), "a").key(&talk.key).send().await.expect(status);
    }
    talk.send(&(messages(talk.id), says("")), "a").key(&talk.key).send().await.expect(422);
    talk.send(&(messages(talk.id), json!({"role": "x", "content": "x"})), "a")
        .key(&talk.key)
        .send()
        .await
        .expect(400);
    assert_eq!(talk.counts().await, (0, 1, 0));
    // What was wrong is mended: the same requests succeed, once.
    talk.app.user("carol").await;
    let path = format!("{TALKS}/{}/participants", talk.id);
    talk.app.post(&path, json!({"user_id": bob})).key(&talk.key).send().await.expect(201);
    for request in &requests {
        let first = made(talk.send(request, "a").key(&talk.key).send().await);
        assert_eq!(replayed(talk.send(request, "a").key(&talk.key).send().await), first);
    }
    assert_eq!(talk.counts().await, (3, 2, 3));
    // One transaction: what could not be stored is not remembered either.
    backend.execute("ALTER TABLE conversations RENAME TO hidden").await;
    for request in talk.requests() {
        talk.send(&request, "b").key(&talk.key).send().await.expect(500);
    }
    backend.execute("ALTER TABLE hidden RENAME TO conversations").await;
    assert_eq!(talk.counts().await, (3, 2, 3));
    for request in talk.requests() {
        made(talk.send(&request, "b").key(&talk.key).send().await);
    }
}

async fn a_repeat_is_authorised_anew(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let [one, three, conversation] = talk.requests();
    let mut first = vec![];
    for request in [&one, &three, &conversation] {
        first.push(made(talk.send(request, "a").session(&talk.as_alice).send().await));
    }
    let begun = first[2]["id"].as_i64().unwrap();
    for id in [talk.id, begun] {
        let path = format!("{TALKS}/{id}/participants/{}", talk.alice);
        talk.app.delete(&path).session(&talk.as_alice).send().await.expect(204);
    }
    for request in [&one, &three, &conversation] {
        let answer = talk.send(request, "a").session(&talk.as_alice).send().await;
        assert!(!answer.text.contains("hello"), "{}", answer.text);
        answer.refused(404, "Conversation not found");
    }
    for id in [talk.id, begun] {
        let path = format!("{TALKS}/{id}/participants");
        let join = talk.app.post(&path, json!({"user_id": talk.alice})).key(&talk.key);
        join.send().await.expect(201);
    }
    for (request, first) in [&one, &three].into_iter().zip(&first) {
        assert_eq!(replayed(talk.send(request, "a").session(&talk.as_alice).send().await), *first);
    }
    // A key that may not write any more, and one that is none.
    let (key, id) = talk.app.key(&talk.key, "write").await;
    made(talk.send(&one, "a").key(&key).send().await);
    let path = format!("/api/v1/api-keys/{id}");
    let weaken = talk.app.patch(&path, json!({"scopes": "read"})).key(&talk.key);
    weaken.send().await.expect(200);
    talk.send(&one, "a").key(&key).send().await.expect(403);
    talk.app.act(&format!("{path}/deactivate")).key(&talk.key).send().await.expect(200);
    talk.send(&one, "a").key(&key).send().await.expect(401);
}

async fn what_is_gone_is_not_found_by_a_repeat(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let mut gone = vec![talk.id];
    for request in talk.requests() {
        let made = made(talk.send(&request, "a").key(&talk.key).send().await);
        if request.0 == TALKS {
            gone.push(made["id"].as_i64().unwrap());
        }
    }
    for id in gone {
        talk.app.delete(&format!("{TALKS}/{id}")).key(&talk.key).send().await.expect(204);
    }
    for request in talk.requests() {
        let answer = talk.send(&request, "a").key(&talk.key).send().await;
        answer.refused(404, "Conversation not found");
    }
    assert_eq!(talk.counts().await, (0, 0, 3));
}

async fn a_day_later_it_happens_again(backend: Backend) {
    let talk = Talk::new(&backend).await;
    for request in talk.requests() {
        let first = made(talk.send(&request, "a").key(&talk.key).send().await);
        talk.app.advance(TimeDelta::hours(24) - TimeDelta::minutes(1));
        assert_eq!(replayed(talk.send(&request, "a").key(&talk.key).send().await), first);
        talk.app.advance(TimeDelta::minutes(2));
        let second = made(talk.send(&request, "a").key(&talk.key).send().await);
        assert_ne!(second, first);
        assert_eq!(replayed(talk.send(&request, "a").key(&talk.key).send().await), second);
    }
    assert_eq!(talk.counts().await, (8, 3, 3));
}

/// Whose, how, where, which, of what, what it made and how many.
type Row = (String, String, String, Vec<u8>, Vec<u8>, i64, i64);

async fn what_is_remembered_holds_no_content(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let mut expected = vec![];
    for (request, count) in talk.requests().into_iter().zip([1, 3, 1]) {
        let made = made(talk.send(&request, "a").session(&talk.as_alice).send().await);
        let first = if made.is_array() { &made[0] } else { &made };
        expected.push((
            format!("user:{}", talk.alice),
            "POST".to_owned(),
            request.0,
            Sha256::digest("a").to_vec(),
            Sha256::digest(request.1.to_string()).to_vec(),
            first["id"].as_i64().unwrap(),
            count,
        ));
    }
    let mut rows: Vec<Row> = talk
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

async fn who_hung_up_and_sends_it_again_has_said_it_once(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let request = &talk.requests()[0];
    let body = request.1.to_string();
    for n in 0..30 {
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {}\r\n{FIELD}: {n}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            request.0,
            talk.key,
            body.len()
        );
        let mut stream = TcpStream::connect(talk.app.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // It may have been read by now, be under way, or be done.
        sleep(Duration::from_micros(n * 200)).await;
        drop(stream);
        let again = talk.send(request, &n.to_string()).key(&talk.key).send().await.expect(201);
        assert_eq!(again["seq"], n + 1);
    }
    // Nothing comes late.
    sleep(Duration::from_millis(200)).await;
    assert_eq!(talk.counts().await, (30, 1, 30));
}
