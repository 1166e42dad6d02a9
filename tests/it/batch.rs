//! Appending several messages in one request (batch).

use crate::support::{Backend, Call, TestApp};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CONVERSATIONS: &str = "/api/v1/conversations";
const MIB: usize = 1024 * 1024;

fn messages(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}/messages")
}

fn user_message(content: impl Into<Value>) -> Value {
    json!({"role": "user", "content": content.into()})
}

/// A batch of the messages `1`, `2` … `n`.
fn counting(n: usize) -> Value {
    json!({"messages": (1..=n).map(|n| user_message(n.to_string())).collect::<Vec<_>>()})
}

/// A server with an admin key and an empty conversation of Alice.
struct Fixture {
    app: TestApp,
    key: String,
    alice: i64,
    id: i64,
}

impl Fixture {
    async fn new(backend: &Backend) -> Self {
        Self::with(backend, &[]).await
    }

    async fn with(backend: &Backend, variables: &[(&str, &str)]) -> Self {
        // Postgres may take 200 ms to index one of the longest messages.
        let mut all = vec![("RATE_LIMIT_ENABLED", "false"), ("REQUEST_TIMEOUT_SECONDS", "300")];
        all.extend(variables);
        let app = TestApp::with(backend, &all).await;
        let key = app.admin().await;
        let alice = app.user("alice").await;
        let id = app.conversation(&key, &[alice]).await;
        Self { app, key, alice, id }
    }

    fn append(&self, body: Value) -> Call {
        self.app.post(&format!("{}/batch", messages(self.id)), body).key(&self.key)
    }

    async fn listed(&self) -> Value {
        let path = format!("{}?limit=1000", messages(self.id));
        self.app.get(&path).key(&self.key).send().await.expect(200)
    }
}

/// The values of one field in each entry of a list.
fn each(list: &Value, field: &str) -> Vec<Value> {
    list.as_array().unwrap().iter().map(|entry| entry[field].clone()).collect()
}

#[apply(on_both!)]
async fn a_batch_is_appended_in_its_order(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let body = json!({"messages": [
        {"role": "system", "content": "be kind", "metadata": {"n": [1]}},
        {"role": "user", "content": "é 😀", "user_id": fixture.alice},
        {"role": "assistant", "content": "hello", "user_id": null, "metadata": null},
    ]});
    let answer = fixture.append(body).send().await;
    assert_eq!((answer.header("etag"), answer.header("idempotency-replayed")), (None, None));
    let appended = answer.expect(201);
    assert_eq!(appended, fixture.listed().await);
    assert_eq!(each(&appended, "seq"), [1, 2, 3]);
    assert_eq!(each(&appended, "content"), ["be kind", "é 😀", "hello"]);
    assert_eq!(each(&appended, "role"), ["system", "user", "assistant"]);
    assert_eq!(each(&appended, "metadata"), [json!({"n": [1]}), Value::Null, Value::Null]);
    assert_eq!(each(&appended, "user_id"), [Value::Null, json!(fixture.alice), Value::Null]);
    assert_eq!(appended[1]["user"]["email"], "alice@example.com");
    // The next single message continues the sequence.
    let path = messages(fixture.id);
    let next =
        fixture.app.post(&path, user_message("next")).key(&fixture.key).send().await.expect(201);
    assert_eq!(next["seq"], 4);
}

#[apply(on_both!)]
async fn a_batch_has_1_to_1000_messages(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    fixture.append(counting(0)).send().await.invalid(&["body.messages"]);
    fixture.append(counting(1001)).send().await.invalid(&["body.messages"]);
    assert_eq!(fixture.app.number("SELECT last_seq FROM conversations").await, 0);
    assert_eq!(fixture.append(counting(1)).send().await.expect(201)[0]["seq"], 1);
    // Includes sizes around the number of rows that one statement inserts.
    for count in [499, 500, 501, 1000] {
        let id = fixture.app.conversation(&fixture.key, &[]).await;
        let path = format!("{}/batch", messages(id));
        let call = fixture.app.post(&path, counting(count)).key(&fixture.key);
        let appended = call.send().await.expect(201);
        let all = format!("{}?limit=1000", messages(id));
        assert!(appended == fixture.app.get(&all).key(&fixture.key).send().await.expect(200));
        assert_eq!(each(&appended, "seq"), (1..=count).collect::<Vec<_>>());
        let contents: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
        assert_eq!(each(&appended, "content"), contents);
        assert!(each(&appended, "id").is_sorted_by(|a, b| a.as_i64() < b.as_i64()));
    }
}

#[apply(on_both!)]
async fn errors_in_a_batch_name_their_location(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let body = json!({"messages": [
        user_message("fine"),
        {"role": "user", "content": ""},
        {"role": "tool", "content": "x"},
        {"role": "", "content": "", "user_id": 0, "metadata": []},
        user_message("x".repeat(100_001)),
        {"role": "user", "content": "x", "metadata": {"k": "x".repeat(17_000)}},
    ]});
    let answer = fixture.append(body).send().await;
    answer.invalid(&[
        "body.messages.1.content",
        "body.messages.2.role",
        "body.messages.3.content",
        "body.messages.3.metadata",
        "body.messages.3.role",
        "body.messages.3.user_id",
        "body.messages.4.content",
        "body.messages.5.metadata",
    ]);
    for (body, places) in [
        (json!({}), &["body.messages"][..]),
        (json!({"messages": null}), &["body.messages"]),
        (json!({"messages": "x"}), &["body.messages"]),
        (json!({"messages": {}}), &["body.messages"]),
        (json!({"messages": [user_message("x"), 1]}), &["body.messages.1"]),
        (json!({"messages": [user_message("x"), null]}), &["body.messages.1"]),
        (json!({"messages": [user_message("x"), {"content": "x"}]}), &["body.messages.1.role"]),
        (json!({"messages": [user_message("x"), {"role": "user"}]}), &["body.messages.1.content"]),
        (json!({"messages": [user_message(1)]}), &["body.messages.0.content"]),
        (
            json!({"messages": [user_message("x"), user_message("a\0b")]}),
            &["body.messages.1.content"],
        ),
        (json!({"messages": [user_message("x")], "x": 1}), &["body.x"]),
        (json!([user_message("x")]), &["body"]),
        (user_message("x"), &["body.content", "body.messages", "body.role"]),
    ] {
        fixture.append(body).send().await.invalid(places);
    }
    // The number of reported errors is limited as in every other response.
    let all_empty = json!({"messages": vec![user_message(""); 1000]});
    let answer = fixture.append(all_empty).send().await;
    assert_eq!((answer.status, answer["detail"].as_array().unwrap().len()), (422, 100));
    assert_eq!(fixture.app.number("SELECT last_seq FROM conversations").await, 0);
}

#[apply(on_both!)]
async fn fields_of_a_message_are_not_mistaken_for_those_of_the_batch(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for (body, places) in [
        (
            json!({"messages": [{"role": "user", "content": "x", "messages": []}]}),
            vec!["body.messages.0.messages"],
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "seq": 1}]}),
            vec!["body.messages.0.seq"],
        ),
        (json!({"messages": [{"content": "x"}], "role": "user"}), vec!["body.messages.0.role"]),
    ] {
        let answer = fixture.append(body).send().await;
        let found = answer.text.clone();
        // One problem may hide others, but each reported location must be right.
        let place = found.contains(&format!("{:?}", places[0].split('.').next_back().unwrap()));
        assert!(place, "{found}");
        answer.invalid(&places);
    }
}

#[apply(on_both!)]
async fn all_of_a_batch_or_none_is_appended(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let before =
        fixture.app.get(&format!("{CONVERSATIONS}/{}", fixture.id)).key(&fixture.key).send().await;
    fixture.app.advance(TimeDelta::minutes(1));
    let non_participant = fixture.app.user("bob").await;
    for user_id in [non_participant, 999_999, i64::MAX] {
        let mut body = counting(600);
        body["messages"][599]["user_id"] = json!(user_id);
        let answer = fixture.append(body).header("Idempotency-Key", "a").send().await;
        answer.refused(403, "User is not a participant in this conversation");
    }
    for table in
        ["messages", "conversation_events WHERE kind = 'message.created'", "idempotency_keys"]
    {
        let sql: &'static str = Box::leak(format!("SELECT COUNT(*) FROM {table}").into_boxed_str());
        assert_eq!(fixture.app.number(sql).await, 0, "{table}");
    }
    let after =
        fixture.app.get(&format!("{CONVERSATIONS}/{}", fixture.id)).key(&fixture.key).send().await;
    assert_eq!(after.expect(200), before.expect(200));
    let body = json!({"messages": [user_message("x")]});
    let unknown =
        fixture.app.post(&format!("{}/batch", messages(999)), body.clone()).key(&fixture.key);
    unknown.send().await.refused(404, "Conversation not found");
    assert_eq!(fixture.append(body).send().await.expect(201)[0]["seq"], 1);
}

#[apply(on_both!)]
async fn no_other_message_is_appended_within_a_batch(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let batch = |n: usize| {
        let messages_of_batch =
            (0..60).map(|m| user_message(format!("{n}:{m}"))).collect::<Vec<_>>();
        tokio::spawn(fixture.append(json!({"messages": messages_of_batch})).send())
    };
    let batches: Vec<_> = (0..8).map(batch).collect();
    let singly =
        || fixture.app.post(&messages(fixture.id), user_message("alone")).key(&fixture.key);
    let singles = fixture.app.send_concurrently(40, singly).await;
    let mut appended = vec![];
    for answer in batches {
        appended.push(answer.await.unwrap().expect(201));
    }
    let listed = fixture.listed().await;
    assert_eq!(each(&listed, "seq"), (1..=520).collect::<Vec<_>>());
    for (n, appended) in appended.into_iter().enumerate() {
        let first = usize::try_from(appended[0]["seq"].as_i64().unwrap()).unwrap();
        let stored = &listed.as_array().unwrap()[first - 1..first + 59];
        assert_eq!(appended.as_array().unwrap(), stored, "batch {n} is stored as it was returned");
        let contents: Vec<String> = (0..60).map(|m| format!("{n}:{m}")).collect();
        assert_eq!(each(&appended, "content"), contents);
    }
    assert!(singles.iter().all(|answer| answer.status == 201));
    let times = each(&listed, "created_at");
    assert!(times.is_sorted_by(|a, b| a.as_str() <= b.as_str()));
}

#[apply(on_both!)]
async fn all_messages_of_a_batch_have_the_same_creation_time(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let path = format!("{CONVERSATIONS}/{}?message_limit=0", fixture.id);
    let mut last = None;
    for _ in 0..3 {
        fixture.app.advance(TimeDelta::minutes(1));
        let appended = fixture.append(counting(3)).send().await.expect(201);
        let times = each(&appended, "created_at");
        assert!(times[0].as_str() > last.as_deref() && times.iter().all(|time| *time == times[0]));
        let shown = fixture.app.get(&path).key(&fixture.key).send().await.expect(200);
        assert_eq!((&shown["last_message_at"], &shown["updated_at"]), (&times[0], &times[0]));
        last = times[0].as_str().map(str::to_owned);
    }
}

/// A batch of exactly `bytes` bytes, at least as many as 160 long messages need.
fn of_bytes(bytes: usize) -> String {
    let body = json!({"messages": vec![user_message("x".repeat(100_000)); 160]}).to_string();
    let blanks = bytes.checked_sub(body.len()).expect("more bytes than it has");
    body + &" ".repeat(blanks)
}

impl Fixture {
    fn append_text(&self, body: String) -> Call {
        let path = format!("{}/batch", messages(self.id));
        let call = self.app.act(&path).key(&self.key);
        call.header("Content-Type", "application/json").body(body)
    }
}

#[apply(on_both!)]
async fn a_batch_may_have_16_mib(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let most = of_bytes(16 * MIB);
    let answer = fixture.append_text(most.clone()).send().await.expect(201);
    assert_eq!(answer.as_array().unwrap().len(), 160);
    let too_long = fixture.append_text(most + " ").send().await;
    too_long.expect(413);
    assert_eq!(fixture.app.number("SELECT last_seq FROM conversations").await, 160);
    // The limit for other bodies is unchanged.
    let path = messages(fixture.id);
    let single =
        fixture.app.act(&path).key(&fixture.key).header("Content-Type", "application/json");
    single.body(user_message("x").to_string() + &" ".repeat(2 * MIB)).send().await.expect(413);
}

#[apply(on_both!)]
async fn a_batch_may_be_larger_when_max_body_bytes_is_larger(backend: Backend) {
    let bytes = (17 * MIB).to_string();
    let fixture = Fixture::with(&backend, &[("MAX_BODY_BYTES", &bytes)]).await;
    fixture.append_text(of_bytes(17 * MIB)).send().await.expect(201);
    fixture.append_text(of_bytes(17 * MIB + 1)).send().await.expect(413);
}

#[apply(on_both!)]
async fn a_user_appends_batches_of_their_own(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let token = fixture.app.session_of(fixture.alice).await;
    let path = format!("{}/batch", messages(fixture.id));
    let append = |body: Value| fixture.app.post(&path, body).session(&token);
    let appended = append(counting(3)).send().await.expect(201);
    assert_eq!(each(&appended, "user_id"), [fixture.alice; 3]);
    assert_eq!(appended, fixture.listed().await);
    let mut body = counting(600);
    body["messages"][599]["role"] = json!("assistant");
    append(body).send().await.refused(403, "A signed-in user can only post as 'user'");
    assert_eq!(fixture.app.number("SELECT last_seq FROM conversations").await, 3);
}

#[apply(on_both!)]
async fn a_body_of_very_many_values_is_refused_before_they_take_memory(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let path = format!("{}/batch", messages(id));
    let body = format!("{{\"messages\": [{}{{}}]}}", "{\"a\":0},".repeat(1_500_000));
    let start = Instant::now();
    let answer = app.call(Method::POST, &path).body(body).key(&key).send().await;
    assert_eq!(answer["detail"][0]["loc"], json!(["body"]), "{}", answer.text);
    let msg = answer["detail"][0]["msg"].as_str().unwrap().to_owned();
    assert_eq!(msg, "Value error, the body has more than 200000 values");
    answer.expect(422);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // Commas and brackets inside strings are not counted as values.
    let text = "[{,\\\"".repeat(10_000);
    let body = json!({"messages": [{"role": "user", "content": text}]});
    app.post(&path, body).key(&key).send().await.expect(201);
}
