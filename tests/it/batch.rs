//! Messages that are appended together.

use crate::support::{Backend, Call, TestApp, tests};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

tests!(on_both: [
    a_body_of_very_many_values_is_refused_before_they_take_memory,
    a_batch_is_appended_in_its_order,
    a_batch_has_1_to_1000_messages,
    what_is_wrong_with_a_batch_is_named_by_its_place,
    fields_of_a_message_are_not_taken_for_those_of_the_batch,
    all_of_a_batch_or_none_is_appended,
    nobody_speaks_between_the_messages_of_a_batch,
    a_batch_has_the_time_of_its_appending,
    a_batch_may_have_16_mib,
    a_batch_may_have_more_where_every_body_may,
    a_user_appends_batches_of_their_own,
]);

const TALKS: &str = "/api/v1/conversations";
const MIB: usize = 1024 * 1024;

fn messages(id: i64) -> String {
    format!("{TALKS}/{id}/messages")
}

fn says(content: impl Into<Value>) -> Value {
    json!({"role": "user", "content": content.into()})
}

/// The messages `1`, `2` … `n`.
fn counting(n: usize) -> Value {
    json!({"messages": (1..=n).map(|n| says(n.to_string())).collect::<Vec<_>>()})
}

/// A server with an admin key and an empty conversation of Alice.
struct Talk {
    app: TestApp,
    key: String,
    alice: i64,
    id: i64,
}

impl Talk {
    async fn new(backend: &Backend) -> Self {
        Self::with(backend, &[]).await
    }

    async fn with(backend: &Backend, variables: &[(&str, &str)]) -> Self {
        // Postgres may take a fifth of a second to index one of the longest messages.
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

/// One field of each entry of a list.
fn each(list: &Value, field: &str) -> Vec<Value> {
    list.as_array().unwrap().iter().map(|entry| entry[field].clone()).collect()
}

async fn a_batch_is_appended_in_its_order(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let body = json!({"messages": [
        {"role": "system", "content": "be kind", "metadata": {"n": [1]}},
        {"role": "user", "content": "é 😀", "user_id": talk.alice},
        {"role": "assistant", "content": "hello", "user_id": null, "metadata": null},
    ]});
    let answer = talk.append(body).send().await;
    assert_eq!((answer.header("etag"), answer.header("idempotency-replayed")), (None, None));
    let appended = answer.expect(201);
    assert_eq!(appended, talk.listed().await);
    assert_eq!(each(&appended, "seq"), [1, 2, 3]);
    assert_eq!(each(&appended, "content"), ["be kind", "é 😀", "hello"]);
    assert_eq!(each(&appended, "role"), ["system", "user", "assistant"]);
    assert_eq!(each(&appended, "metadata"), [json!({"n": [1]}), Value::Null, Value::Null]);
    assert_eq!(each(&appended, "user_id"), [Value::Null, json!(talk.alice), Value::Null]);
    assert_eq!(appended[1]["user"]["email"], "alice@example.com");
    // The next one follows.
    let path = messages(talk.id);
    let next = talk.app.post(&path, says("next")).key(&talk.key).send().await.expect(201);
    assert_eq!(next["seq"], 4);
}

async fn a_batch_has_1_to_1000_messages(backend: Backend) {
    let talk = Talk::new(&backend).await;
    talk.append(counting(0)).send().await.invalid(&["body.messages"]);
    talk.append(counting(1001)).send().await.invalid(&["body.messages"]);
    assert_eq!(talk.app.number("SELECT last_seq FROM conversations").await, 0);
    assert_eq!(talk.append(counting(1)).send().await.expect(201)[0]["seq"], 1);
    // Around the number that one statement takes, too.
    for count in [499, 500, 501, 1000] {
        let id = talk.app.conversation(&talk.key, &[]).await;
        let path = format!("{}/batch", messages(id));
        let call = talk.app.post(&path, counting(count)).key(&talk.key);
        let appended = call.send().await.expect(201);
        let all = format!("{}?limit=1000", messages(id));
        assert!(appended == talk.app.get(&all).key(&talk.key).send().await.expect(200));
        assert_eq!(each(&appended, "seq"), (1..=count).collect::<Vec<_>>());
        let contents: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
        assert_eq!(each(&appended, "content"), contents);
        assert!(each(&appended, "id").is_sorted_by(|a, b| a.as_i64() < b.as_i64()));
    }
}

async fn what_is_wrong_with_a_batch_is_named_by_its_place(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let body = json!({"messages": [
        says("fine"),
        {"role": "user", "content": ""},
        {"role": "tool", "content": "x"},
        {"role": "", "content": "", "user_id": 0, "metadata": []},
        says("x".repeat(100_001)),
        {"role": "user", "content": "x", "metadata": {"k": "x".repeat(17_000)}},
    ]});
    let answer = talk.append(body).send().await;
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
        (json!({"messages": [says("x"), 1]}), &["body.messages.1"]),
        (json!({"messages": [says("x"), null]}), &["body.messages.1"]),
        (json!({"messages": [says("x"), {"content": "x"}]}), &["body.messages.1.role"]),
        (json!({"messages": [says("x"), {"role": "user"}]}), &["body.messages.1.content"]),
        (json!({"messages": [says(1)]}), &["body.messages.0.content"]),
        (json!({"messages": [says("x"), says("a\0b")]}), &["body.messages.1.content"]),
        (json!({"messages": [says("x")], "x": 1}), &["body.x"]),
        (json!([says("x")]), &["body"]),
        (says("x"), &["body.content", "body.messages", "body.role"]),
    ] {
        talk.append(body).send().await.invalid(places);
    }
    // Not more of them than in any other answer.
    let all_empty = json!({"messages": vec![says(""); 1000]});
    let answer = talk.append(all_empty).send().await;
    assert_eq!((answer.status, answer["detail"].as_array().unwrap().len()), (422, 100));
    assert_eq!(talk.app.number("SELECT last_seq FROM conversations").await, 0);
}

async fn fields_of_a_message_are_not_taken_for_those_of_the_batch(backend: Backend) {
    let talk = Talk::new(&backend).await;
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
        let answer = talk.append(body).send().await;
        let found = answer.text.clone();
        // One problem may stop the search for others, but none is told that there is not.
        let place = found.contains(&format!("{:?}", places[0].split('.').next_back().unwrap()));
        assert!(place, "{found}");
        answer.invalid(&places);
    }
}

async fn all_of_a_batch_or_none_is_appended(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let before = talk.app.get(&format!("{TALKS}/{}", talk.id)).key(&talk.key).send().await;
    talk.app.advance(TimeDelta::minutes(1));
    let stranger = talk.app.user("bob").await;
    for user_id in [stranger, 999_999, i64::MAX] {
        let mut body = counting(600);
        body["messages"][599]["user_id"] = json!(user_id);
        let answer = talk.append(body).header("Idempotency-Key", "a").send().await;
        answer.refused(403, "User is not a participant in this conversation");
    }
    for table in
        ["messages", "conversation_events WHERE kind = 'message.created'", "idempotency_keys"]
    {
        let sql: &'static str = Box::leak(format!("SELECT COUNT(*) FROM {table}").into_boxed_str());
        assert_eq!(talk.app.number(sql).await, 0, "{table}");
    }
    let after = talk.app.get(&format!("{TALKS}/{}", talk.id)).key(&talk.key).send().await;
    assert_eq!(after.expect(200), before.expect(200));
    let body = json!({"messages": [says("x")]});
    let unknown = talk.app.post(&format!("{}/batch", messages(999)), body.clone()).key(&talk.key);
    unknown.send().await.refused(404, "Conversation not found");
    assert_eq!(talk.append(body).send().await.expect(201)[0]["seq"], 1);
}

async fn nobody_speaks_between_the_messages_of_a_batch(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let batch = |n: usize| {
        let said = (0..60).map(|m| says(format!("{n}:{m}"))).collect::<Vec<_>>();
        tokio::spawn(talk.append(json!({"messages": said})).send())
    };
    let batches: Vec<_> = (0..8).map(batch).collect();
    let singly = || talk.app.post(&messages(talk.id), says("alone")).key(&talk.key);
    let singles = talk.app.at_once(40, singly).await;
    let mut appended = vec![];
    for answer in batches {
        appended.push(answer.await.unwrap().expect(201));
    }
    let listed = talk.listed().await;
    assert_eq!(each(&listed, "seq"), (1..=520).collect::<Vec<_>>());
    for (n, appended) in appended.into_iter().enumerate() {
        let first = usize::try_from(appended[0]["seq"].as_i64().unwrap()).unwrap();
        let stored = &listed.as_array().unwrap()[first - 1..first + 59];
        assert_eq!(appended.as_array().unwrap(), stored, "batch {n} is there as it was answered");
        let contents: Vec<String> = (0..60).map(|m| format!("{n}:{m}")).collect();
        assert_eq!(each(&appended, "content"), contents);
    }
    assert!(singles.iter().all(|answer| answer.status == 201));
    let times = each(&listed, "created_at");
    assert!(times.is_sorted_by(|a, b| a.as_str() <= b.as_str()));
}

async fn a_batch_has_the_time_of_its_appending(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let path = format!("{TALKS}/{}?message_limit=0", talk.id);
    let mut last = None;
    for _ in 0..3 {
        talk.app.advance(TimeDelta::minutes(1));
        let appended = talk.append(counting(3)).send().await.expect(201);
        let times = each(&appended, "created_at");
        assert!(times[0].as_str() > last.as_deref() && times.iter().all(|time| *time == times[0]));
        let shown = talk.app.get(&path).key(&talk.key).send().await.expect(200);
        assert_eq!((&shown["last_message_at"], &shown["updated_at"]), (&times[0], &times[0]));
        last = times[0].as_str().map(str::to_owned);
    }
}

/// A batch of `bytes` bytes, which are as many as 160 long messages need at least.
fn of_bytes(bytes: usize) -> String {
    let body = json!({"messages": vec![says("x".repeat(100_000)); 160]}).to_string();
    let blanks = bytes.checked_sub(body.len()).expect("more bytes than it has");
    body + &" ".repeat(blanks)
}

impl Talk {
    fn append_text(&self, body: String) -> Call {
        let path = format!("{}/batch", messages(self.id));
        let call = self.app.act(&path).key(&self.key);
        call.header("Content-Type", "application/json").body(body)
    }
}

async fn a_batch_may_have_16_mib(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let most = of_bytes(16 * MIB);
    let answer = talk.append_text(most.clone()).send().await.expect(201);
    assert_eq!(answer.as_array().unwrap().len(), 160);
    let too_long = talk.append_text(most + " ").send().await;
    too_long.expect(413);
    assert_eq!(talk.app.number("SELECT last_seq FROM conversations").await, 160);
    // Other bodies have no more room than before.
    let path = messages(talk.id);
    let single = talk.app.act(&path).key(&talk.key).header("Content-Type", "application/json");
    single.body(says("x").to_string() + &" ".repeat(2 * MIB)).send().await.expect(413);
}

async fn a_batch_may_have_more_where_every_body_may(backend: Backend) {
    let bytes = (17 * MIB).to_string();
    let talk = Talk::with(&backend, &[("MAX_BODY_BYTES", &bytes)]).await;
    talk.append_text(of_bytes(17 * MIB)).send().await.expect(201);
    talk.append_text(of_bytes(17 * MIB + 1)).send().await.expect(413);
}

async fn a_user_appends_batches_of_their_own(backend: Backend) {
    let talk = Talk::new(&backend).await;
    let token = talk.app.session_of(talk.alice).await;
    let path = format!("{}/batch", messages(talk.id));
    let append = |body: Value| talk.app.post(&path, body).session(&token);
    let appended = append(counting(3)).send().await.expect(201);
    assert_eq!(each(&appended, "user_id"), [talk.alice; 3]);
    assert_eq!(appended, talk.listed().await);
    let mut body = counting(600);
    body["messages"][599]["role"] = json!("assistant");
    append(body).send().await.refused(403, "A logged-in user may only post as 'user'");
    assert_eq!(talk.app.number("SELECT last_seq FROM conversations").await, 3);
}

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
    // Commas and brackets in texts are none.
    let text = "[{,\\\"".repeat(10_000);
    let body = json!({"messages": [{"role": "user", "content": text}]});
    app.post(&path, body).key(&key).send().await.expect(201);
}
