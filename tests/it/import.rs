//! Imports of conversations: format, matching of users, refusals, and concurrency with slow
//! clients.

use crate::support::{Answer, Backend, TestApp};
use crate::transfer::lines;
use octopus::db::query;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

const CONVERSATIONS_PATH: &str = "/api/v1/conversations";
const AT: &str = "2026-01-31T09:30:00.000000Z";

async fn import(app: &TestApp, key: &str, text: impl Into<String>) -> Answer {
    let path = "/api/v1/conversations/import?attach_newer_accounts=true";
    let call = app.act(path).key(key);
    call.header("Content-Type", "application/x-ndjson").body(text.into()).send().await
}

/// The lines joined into one body.
fn text(lines: &[Value]) -> String {
    lines.iter().flat_map(|line| [line.to_string(), "\n".to_owned()]).collect()
}

fn conversation_line(external_id: &str) -> Value {
    json!({"type": "conversation", "external_id": external_id, "created_at": AT})
}

fn message_line(content: &str) -> Value {
    json!({"type": "message", "role": "user", "content": content, "created_at": AT})
}

/// The export of every conversation, ordered by id.
async fn export(app: &TestApp, key: &str) -> String {
    let ids: Vec<(i64,)> = app.rows("SELECT id FROM conversations ORDER BY id").await;
    let mut all = String::new();
    for (id,) in ids {
        let answer = app.get(&format!("{CONVERSATIONS_PATH}/{id}/export")).key(key).send().await;
        lines(&answer);
        all += &answer.text;
    }
    all
}

/// The numbers of conversations, messages and events.
async fn counts(app: &TestApp) -> [i64; 3] {
    [
        app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM conversations").await,
        app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM messages").await,
        app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM conversation_events").await,
    ]
}

/// A request whose body is sent in several chunks.
struct StreamedRequest(TcpStream);

impl StreamedRequest {
    async fn begin(app: &TestApp, key: &str) -> Self {
        let head = format!(
            "POST {CONVERSATIONS_PATH}/import?attach_newer_accounts=true HTTP/1.1\r\nHost: x\r\n\
             Octopus-API-Key: {key}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.0.write_all(chunk.as_bytes()).await.unwrap();
    }

    /// Ends the body. Returns the status and the body of the response.
    async fn end(mut self) -> (u16, Value) {
        self.0.write_all(b"0\r\n\r\n").await.unwrap();
        self.answer().await
    }

    async fn answer(mut self) -> (u16, Value) {
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        let body = serde_json::from_str(body).expect(body);
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }
}

/// Waits until `sql` returns `n`.
async fn wait_until(app: &TestApp, sql: &'static str, n: i64) {
    let end = Instant::now() + Duration::from_mins(1);
    while app.number(sql).await != n {
        assert!(Instant::now() < end, "{sql} does not become {n}");
        sleep(Duration::from_millis(10)).await;
    }
}

const COUNT_CONVERSATIONS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM conversations";

/// Three users that exist in every installation of these tests, and one that does not.
const USERNAMES: [&str; 4] = ["alice", "Bob", "çelik", "nobody"];

fn unusual_text(length: &str) -> impl Strategy<Value = String> + use<> {
    // Anything except U+0000: other control characters, quotes, other scripts, what JSON escapes.
    prop_oneof![
        proptest::string::string_regex(&format!("[^\\x00]{length}")).unwrap(),
        Just("\u{1}\u{7f}\u{2028}\u{feff}\"\\\r\n\t😀e\u{301}日本語".to_owned()),
    ]
}

fn timestamp() -> impl Strategy<Value = String> {
    // Up to 2023: an import has no times in the future.
    (0..1_700_000_000_000_000_i64).prop_map(|microseconds| {
        let time = chrono::DateTime::from_timestamp_micros(microseconds).unwrap();
        time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
    })
}

fn metadata() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        unusual_text("{0,9}").prop_map(Value::from),
    ];
    let value = scalar.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(unusual_text("{0,5}"), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let object = prop::collection::btree_map(unusual_text("{0,5}"), value, 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()));
    prop_oneof![Just(Value::Null), object]
}

fn user() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        prop::sample::select(&USERNAMES[..])
            .prop_map(|name| json!({"username": name, "email": format!("{name}@example.com")})),
    ]
}

prop_compose! {
    fn message()(
        role in prop::sample::select(&["user", "assistant", "system"][..]),
        content in unusual_text("{1,60}"),
        user in user(),
        metadata in metadata(),
        created_at in timestamp(),
        edited_at in prop::option::of(timestamp()),
        deleted_at in prop::option::weighted(0.2, timestamp()),
    ) -> Value {
        let (content, metadata) =
            if deleted_at.is_some() { (String::new(), Value::Null) } else { (content, metadata) };
        json!({"type": "message", "role": role, "content": content, "user": user,
            "metadata": metadata, "created_at": created_at, "edited_at": edited_at,
            "deleted_at": deleted_at})
    }
}

prop_compose! {
    /// A conversation in export format, possibly with a user who does not exist.
    fn conversation()(
        external_id in unusual_text("{1,20}"),
        unique in any::<u128>(),
        title in prop::option::of(unusual_text("{0,30}")),
        metadata in metadata(),
        created_at in timestamp(),
        updated_at in timestamp(),
        participants in prop::sample::subsequence(USERNAMES.to_vec(), 0..=USERNAMES.len()),
        messages in prop::collection::vec(message(), 0..40),
    ) -> Vec<Value> {
        let mut participants = participants;
        participants.sort_unstable();
        let participants: Vec<_> = participants.into_iter()
            .map(|name| json!({"username": name, "email": format!("{name}@example.com")}))
            .collect();
        let mut lines = vec![json!({"type": "conversation",
            "external_id": format!("{external_id}{unique}"), "title": title,
            "metadata": metadata, "created_at": created_at, "updated_at": updated_at,
            "participants": participants, "message_count": messages.len()})];
        lines.extend(messages);
        lines
    }
}

/// `lines` without unknown users: the expected export after importing `lines`.
fn without_unknown_users(lines: &[Value]) -> Vec<Value> {
    let is_unknown = |user: &Value| user["username"] == "nobody";
    let mut lines = lines.to_vec();
    for line in &mut lines {
        if let Some(Value::Array(participants)) = line.get_mut("participants") {
            participants.retain(|user| !is_unknown(user));
        } else if is_unknown(&line["user"]) {
            line["user"] = Value::Null;
        }
    }
    lines
}

#[apply(on_both!)]
async fn an_imported_export_is_exported_unchanged(backend: Backend) {
    let other_backend = backend.another();
    let apps = [TestApp::new(&backend).await, TestApp::new(&other_backend).await];
    let keys = [apps[0].admin().await, apps[1].admin().await];
    // The same users have different ids.
    for (app, names) in apps.iter().zip([["alice", "Bob", "çelik"], ["çelik", "alice", "Bob"]]) {
        for name in names {
            register(app, name).await;
        }
    }
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let round = async |sent: Vec<Vec<Value>>| -> Result<(), TestCaseError> {
        for (app, key) in apps.iter().zip(&keys) {
            delete_conversations(app).await;
            assert_eq!(counts(app).await, [0; 3], "{key}");
        }
        let expected = text(&without_unknown_users(&sent.concat()));
        let first = import(&apps[0], &keys[0], text(&sent.concat())).await;
        prop_assert_eq!(first.status, 200, "{}", first.text);
        prop_assert_eq!(&first["imported"], sent.len());
        let exported = export(&apps[0], &keys[0]).await;
        prop_assert_eq!(parsed(&exported), parsed(&expected));
        let second = import(&apps[1], &keys[1], exported.clone()).await;
        prop_assert_eq!(second.status, 200, "{}", second.text);
        prop_assert_eq!(&second["unmatched"], &json!([]));
        prop_assert_eq!(export(&apps[1], &keys[1]).await, exported);
        Ok(())
    };
    let outcome = block_in_place(|| {
        runner.run(&prop::collection::vec(conversation(), 1..4), |sent| {
            Handle::current().block_on(round(sent))
        })
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    drop(apps);
    other_backend.remove().await;
}

fn parsed(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn delete_conversations(app: &TestApp) {
    let mut tx = app.state.db.begin().await.unwrap();
    query(&mut tx, "DELETE FROM conversations").execute().await.unwrap();
    tx.commit().await.unwrap();
}

async fn register(app: &TestApp, name: &str) -> i64 {
    const SQL: &str = "INSERT INTO users (email, email_key, username, username_key, password_hash, \
        created_at, updated_at) VALUES ($1, $2, $3, $4, 'x', $5, $5) RETURNING id";
    let email = format!("{name}@example.com");
    let folded = octopus::core::text::folded;
    let mut tx = app.state.db.begin().await.unwrap();
    let statement = query(&mut tx, SQL).bind(&*email).bind(folded(&email));
    let statement = statement.bind(name).bind(folded(name)).bind(app.state.clock.now());
    let (id,): (i64,) = statement.one().await.unwrap();
    tx.commit().await.unwrap();
    id
}

#[apply(on_both!)]
async fn a_user_s_export_can_be_imported(backend: Backend) {
    let other_backend = backend.another();
    let (here, there) = (TestApp::new(&backend).await, TestApp::new(&other_backend).await);
    let (key, other_key) = (here.admin().await, there.admin().await);
    let (alice, bob) = (here.user("alice").await, here.user("bob").await);
    for name in ["bob", "alice"] {
        there.user(name).await;
    }
    for _ in 0..3 {
        let id = here.conversation(&key, &[alice, bob]).await;
        let body = json!({"role": "user", "content": "hello", "user_id": bob});
        here.post(&format!("{CONVERSATIONS_PATH}/{id}/messages"), body)
            .key(&key)
            .send()
            .await
            .expect(201);
    }
    // With a key, which shows all emails, and with her own session, which shows only hers.
    let session = here.session_of(alice).await;
    for call in [
        here.get(&format!("/api/v1/users/{alice}/export")).key(&key),
        here.get("/api/v1/users/me/export").session(&session),
    ] {
        let answer = call.send().await;
        delete_conversations(&there).await;
        let report = import(&there, &other_key, answer.text).await.expect(200);
        let counts = ["imported", "skipped", "messages"].map(|name| report[name].as_i64().unwrap());
        assert_eq!(counts, [3, 0, 3]);
        assert_eq!((&report["unmatched"], &report["newer_accounts"]), (&json!([]), &json!([])));
        let names = report["matched"].as_array().unwrap().iter();
        let mut names: Vec<&Value> = names.map(|one| &one["person"]["username"]).collect();
        names.sort_by_key(ToString::to_string);
        assert_eq!(names, ["alice", "bob"]);
        assert_eq!(export(&there, &other_key).await, export(&here, &key).await);
    }
    drop(there);
    other_backend.remove().await;
}

#[apply(on_both!)]
async fn repeating_an_import_changes_nothing(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let sent = text(&[
        conversation_line("a"),
        message_line("one"),
        message_line("two"),
        conversation_line("b"),
        conversation_line("c"),
        message_line("three"),
    ]);
    let report = import(&app, &key, sent.clone()).await.expect(200);
    assert_eq!((&report["imported"], &report["messages"]), (&json!(3), &json!(3)));
    let before = export(&app, &key).await;
    let report = import(&app, &key, sent).await.expect(200);
    assert_eq!((&report["imported"], &report["skipped"]), (&json!(0), &json!(3)));
    assert_eq!((&report["messages"], export(&app, &key).await), (&json!(0), before.clone()));
    // Conversations that exist here are skipped, whatever changed on either side.
    let changed = text(&[conversation_line("a"), message_line("another"), conversation_line("d")]);
    let report = import(&app, &key, changed).await.expect(200);
    assert_eq!((&report["imported"], &report["skipped"]), (&json!(1), &json!(1)));
    assert!(export(&app, &key).await.starts_with(&before));
    // An export of this server is recognised, too.
    let id = app.conversation(&key, &[]).await;
    let own = app.get(&format!("{CONVERSATIONS_PATH}/{id}/export")).key(&key).send().await.text;
    let report = import(&app, &key, own).await.expect(200);
    assert_eq!((&report["imported"], &report["skipped"]), (&json!(0), &json!(1)));
}

#[apply(on_both!)]
async fn concurrent_imports_of_the_same_conversations_store_them_once(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sent = vec![];
    for n in 0..20 {
        sent.push(conversation_line(&n.to_string()));
        sent.extend((0..20).map(|n| message_line(&n.to_string())));
    }
    let sent = text(&sent);
    let call = || {
        let call = app.act("/api/v1/conversations/import").key(&key);
        call.header("Content-Type", "application/x-ndjson; charset=utf-8").body(sent.clone())
    };
    let mut imported = 0;
    for answer in app.send_concurrently(4, call).await {
        let report = answer.expect(200);
        let number = |name: &str| report[name].as_i64().unwrap();
        assert_eq!(number("imported") + number("skipped"), 20);
        assert_eq!(number("messages"), number("imported") * 20);
        imported += number("imported");
    }
    assert_eq!((imported, counts(&app).await), (20, [20, 400, 0]));
}

#[apply(on_both!)]
async fn users_are_matched_by_email_or_else_by_username(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let cases = [
        (json!({"email": "ALICE@example.com"}), Some(alice)),
        (json!({"username": "ALICE"}), Some(alice)),
        (json!({"username": "alice", "email": "bob@example.com"}), Some(bob)),
        (json!({"username": "unknown", "email": "bob@example.com"}), Some(bob)),
        // Another user with the same username.
        (json!({"username": "bob", "email": "bob@elsewhere.example"}), None),
        (json!({"username": "bob@example.com"}), None),
        (json!({"email": "bob"}), None),
        (Value::Null, None),
    ];
    let mut sent = vec![conversation_line("a")];
    for (reference, _) in &cases {
        let mut line = message_line("x");
        line["user"] = reference.clone();
        sent.push(line);
    }
    import(&app, &key, text(&sent)).await.expect(200);
    let found: Vec<(Option<i64>,)> = app.rows("SELECT user_id FROM messages ORDER BY seq").await;
    let expected: Vec<_> = cases.iter().map(|(_, id)| (*id,)).collect();
    assert_eq!(found, expected);
    // An author need not be a participant.
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM participants").await, 0);
}

#[apply(on_both!)]
async fn unknown_users_are_reported_and_left_out(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.user("alice").await;
    let zoe = json!({"username": "zoe", "email": "zoe@example.com"});
    let (mut first, mut message) = (conversation_line("a"), message_line("x"));
    first["participants"] = json!([{"username": "alice"}, zoe]);
    message["user"] = zoe.clone();
    let sent = [first, message.clone(), message.clone(), message_line("y")];
    let report = import(&app, &key, text(&sent)).await.expect(200);
    assert_eq!(report["unmatched"], json!([zoe]));
    assert_eq!(report["unmatched_truncated"], false);
    let exported = parsed(&export(&app, &key).await);
    let alice = json!({"username": "alice", "email": "alice@example.com"});
    assert_eq!(
        (&exported[0]["participants"], &exported[1]["user"]),
        (&json!([alice]), &json!(null))
    );
    // The report is truncated.
    let mut sent = vec![conversation_line("b")];
    for n in 0..300 {
        message["user"] = json!({"username": format!("stranger {n}")});
        sent.push(message.clone());
    }
    let report = import(&app, &key, text(&sent)).await.expect(200);
    assert_eq!(report["unmatched"].as_array().unwrap().len(), 100);
    assert_eq!((&report["unmatched_truncated"], &report["messages"]), (&json!(true), &json!(300)));
}

/// An account registered with another user's email after the imported messages were written does
/// not get them.
#[apply(on_both!)]
async fn imported_messages_are_not_attached_to_accounts_registered_later(backend: Backend) {
    const OTHERS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM messages WHERE user_id IS NOT NULL";
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (mallory, eve) = (app.user("mallory").await, app.user("eve").await);
    app.advance(chrono::TimeDelta::days(10));
    let between = app.state.clock.now();
    app.advance(chrono::TimeDelta::days(10));
    // An older account changes its email to the one in the import.
    let change = json!({"email": "victim@example.com"});
    app.put(&format!("/api/v1/users/{eve}"), change).key(&key).send().await.expect(200);
    let victim = json!({"username": "victim", "email": "Victim@Example.com"});
    let other = json!({"username": "\u{ff4d}allory"}); // in another spelling
    let lines = |external_id: &str, at: String| {
        let mut conversation_line = conversation_line(external_id);
        conversation_line["participants"] = json!([victim, other]);
        conversation_line["created_at"] = json!(at);
        let message_line = |user: &Value| {
            let mut message_line = message_line("private");
            message_line["user"] = user.clone();
            message_line["created_at"] = json!(at);
            message_line
        };
        text(&[conversation_line, message_line(&victim), message_line(&other)])
    };
    let send = async |path: &str, body: String| {
        let call = app.act(path).key(&key).header("Content-Type", "application/x-ndjson");
        call.body(body).send().await.expect(200)
    };
    let path = format!("{CONVERSATIONS_PATH}/import");
    let report = send(&path, lines("a", AT.to_owned())).await;
    let of_eve = json!({"person": victim, "user_id": eve});
    let of_mallory =
        json!({"person": {"username": "\u{ff4d}allory", "email": null}, "user_id": mallory});
    assert_eq!(report["newer_accounts"], json!([of_eve, of_mallory]));
    assert_eq!((&report["matched"], &report["unmatched"]), (&json!([]), &json!([])));
    assert_eq!(app.number(OTHERS).await, 0);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM participants").await, 0);
    // Messages written after mallory registered are attached to mallory.
    let report = send(&path, lines("b", between.to_rfc3339())).await;
    assert_eq!(report["newer_accounts"], json!([of_eve]));
    assert_eq!(report["matched"], json!([of_mallory]));
    assert_eq!(app.number(OTHERS).await, 1);
    // The operator can attach newer accounts explicitly.
    let report =
        send(&format!("{path}?attach_newer_accounts=true"), lines("c", AT.to_owned())).await;
    assert_eq!(report["matched"], json!([of_eve, of_mallory]));
    assert_eq!(report["newer_accounts"], json!([]));
    assert_eq!(app.number(OTHERS).await, 3);
}

#[apply(on_both!)]
async fn messages_after_an_import_continue_its_sequence(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sent = vec![conversation_line("a")];
    sent.extend((0..300).map(|n| message_line(&n.to_string())));
    import(&app, &key, text(&sent)).await.expect(200);
    let (id, seq): (i64, i64) = app.rows("SELECT id, last_seq FROM conversations").await.remove(0);
    assert_eq!((seq, counts(&app).await), (300, [1, 300, 0]));
    let shown = app.get(&format!("{CONVERSATIONS_PATH}/{id}")).key(&key).send().await.expect(200);
    assert_eq!(shown["created_at"], AT);
    assert_eq!((&shown["updated_at"], &shown["last_message_at"]), (&json!(AT), &json!(AT)));
    assert_eq!(shown["messages"][299]["content"], "299");
    let body = json!({"role": "user", "content": "next"});
    let next = app
        .post(&format!("{CONVERSATIONS_PATH}/{id}/messages"), body)
        .key(&key)
        .send()
        .await
        .expect(201);
    assert_eq!(next["seq"], 301);
    assert_eq!(counts(&app).await, [1, 301, 1]);
}

#[apply(on_both!)]
async fn a_bad_line_is_named_and_its_conversation_is_not_stored(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let with = |mut line: Value, field: &str, value: Value| {
        line[field] = value;
        line.to_string()
    };
    let without = |mut line: Value, field: &str| {
        line.as_object_mut().unwrap().remove(field);
        line.to_string()
    };
    let (conversation_line, message_line) = (conversation_line("bad"), message_line("x"));
    for (n, (line, places)) in [
        ("{".to_owned(), &["body.5"][..]),
        ("[]".to_owned(), &["body.5"]),
        ("{}".to_owned(), &["body.5.type"]),
        (with(message_line.clone(), "type", json!("reply")), &["body.5.type"]),
        (with(message_line.clone(), "type", json!(1)), &["body.5.type"]),
        (with(message_line.clone(), "id", json!(1)), &["body.5.id"]),
        (with(message_line.clone(), "role", json!("tool")), &["body.5.role"]),
        (with(message_line.clone(), "content", json!(1)), &["body.5.content"]),
        (with(message_line.clone(), "content", json!("a\0b")), &["body.5.content"]),
        (without(message_line.clone(), "content"), &["body.5.content"]),
        (without(message_line.clone(), "created_at"), &["body.5.created_at"]),
        (with(message_line.clone(), "created_at", json!("yesterday")), &["body.5.created_at"]),
        (with(message_line.clone(), "user", json!({})), &["body.5.user"]),
        (with(message_line.clone(), "user", json!({"id": 1})), &["body.5.user.id"]),
        (with(message_line.clone(), "user", json!({"username": ""})), &["body.5.user.username"]),
        (with(message_line.clone(), "user", json!("alice")), &["body.5.user"]),
        (with(message_line, "metadata", json!([])), &["body.5.metadata"]),
        (without(conversation_line.clone(), "external_id"), &["body.5.external_id"]),
        (with(conversation_line.clone(), "external_id", json!("")), &["body.5.external_id"]),
        (without(conversation_line.clone(), "created_at"), &["body.5.created_at"]),
        (with(conversation_line.clone(), "title", json!("x".repeat(256))), &["body.5.title"]),
        (with(conversation_line.clone(), "id", json!(1)), &["body.5.id"]),
        (
            with(
                conversation_line,
                "participants",
                json!([{"username": "a"}, {"email": "x".repeat(255)}]),
            ),
            &["body.5.participants.1.email"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (good, open) = (format!("good {n}"), format!("open {n}"));
        let sent = text(&[
            self::conversation_line(&good),
            self::message_line("one"),
            self::conversation_line(&open),
            self::message_line("two"),
        ]);
        let before = counts(&app).await;
        let answer =
            import(&app, &key, format!("{sent}{line}\n{}", text(&[self::message_line("x")]))).await;
        // A conversation is complete where the next one begins; after any other bad line it is
        // incomplete.
        let whole = if line.contains(r#""type":"conversation""#) { 2 } else { 1 };
        let stays = answer["detail"].as_array().unwrap().last().unwrap()["msg"].to_string();
        assert!(stays.contains(&format!("kept: {whole} imported, 0 already present")), "{stays}");
        answer.invalid(&[places, &["body.5"]].concat());
        let expected = [before[0] + whole, before[1] + whole, 0];
        assert_eq!(counts(&app).await, expected, "{line}");
    }
    let answer = import(&app, &key, "\n\nnonsense").await;
    answer.invalid(&["body.3"]);
}

#[apply(on_both!)]
async fn every_line_belongs_to_a_conversation_and_none_may_be_missing(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let user = json!({"type": "user", "username": "alice", "whatever": [1]});
    import(&app, &key, text(&[message_line("x")])).await.invalid(&["body.1.type"]);
    let participants = json!({"type": "participants", "participants": []});
    import(&app, &key, text(&[participants])).await.invalid(&["body.1.type"]);
    let answer = import(
        &app,
        &key,
        text(&[user.clone(), conversation_line("a"), user.clone(), message_line("x")]),
    )
    .await;
    answer.invalid(&["body.4", "body.4.type"]);
    let counted = |external_id: &str, count: i64| {
        let mut line = conversation_line(external_id);
        line["message_count"] = json!(count);
        line
    };
    // A truncated export.
    let answer = import(&app, &key, text(&[counted("b", 2), message_line("x")])).await;
    let msg = answer["detail"][0]["msg"].to_string();
    assert!(msg.contains("1 messages follow"), "{msg}");
    answer.invalid(&["body.1.message_count"]);
    let answer =
        import(&app, &key, text(&[counted("b", 0), message_line("x"), conversation_line("c")]))
            .await;
    answer.invalid(&["body.1.message_count"]);
    assert_eq!(counts(&app).await, [1, 0, 0]);
    let report =
        import(&app, &key, text(&[counted("b", 1), message_line("x"), user])).await.expect(200);
    assert_eq!((&report["imported"], &report["messages"]), (&json!(1), &json!(1)));
    let nothing = json!({"imported": 0, "skipped": 0, "messages": 0, "unmatched": [],
        "unmatched_truncated": false, "matched": [], "matched_truncated": false,
        "newer_accounts": [], "newer_accounts_truncated": false});
    assert_eq!(import(&app, &key, "").await.expect(200), nothing);
}

#[apply(on_both!)]
async fn deleted_messages_are_imported_without_content(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut line = message_line("hunter2");
    line["deleted_at"] = json!(AT);
    line["metadata"] = json!({"secret": "hunter2"});
    import(&app, &key, text(&[conversation_line("a"), line])).await.expect(200);
    let stored: Vec<(String, Option<String>)> =
        app.rows("SELECT content, metadata FROM messages").await;
    assert_eq!(stored, [(String::new(), None)]);
}

#[apply(on_both!)]
async fn a_line_has_at_most_four_mebibytes(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    // No repeated pair of characters: the most that an index can hold of one message.
    let odd: String = (0..249_999_u32).filter_map(|n| char::from_u32(0x1_0000 + n)).collect();
    import(&app, &key, text(&[conversation_line("odd"), message_line(&odd)])).await.expect(200);
    delete_conversations(&app).await;
    // Longer than a posted message and than a whole body on other routes.
    let long = message_line(&"é".repeat(500_000));
    let sent = text(&[conversation_line("a"), long.clone(), long.clone(), long.clone()]);
    let report = import(&app, &key, sent).await.expect(200);
    assert_eq!(report["messages"], 3);
    let exported = export(&app, &key).await;
    assert!(parsed(&exported)[3]["content"] == long["content"]);
    let too_long = message_line(&"x".repeat(1_000_001));
    let answer = import(&app, &key, text(&[conversation_line("b"), too_long])).await;
    answer.invalid(&["body.2.content"]);
    let beyond = message_line(&"x".repeat(4_200_000));
    import(&app, &key, text(&[conversation_line("b"), beyond])).await.invalid(&["body.2"]);
    assert_eq!(counts(&app).await, [1, 3, 0]);
}

#[apply(on_both!)]
async fn only_json_lines_are_accepted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let call =
        || app.act("/api/v1/conversations/import").key(&key).body(text(&[conversation_line("a")]));
    for wrong in ["application/json", "text/plain", "application/x-www-form-urlencoded", ""] {
        let answer = call().header("Content-Type", wrong).send().await;
        let detail = "The request body must be newline-delimited JSON (NDJSON): send Content-Type: \
             application/x-ndjson";
        answer.refused(415, detail);
    }
    assert_eq!(call().send().await.expect(200)["imported"], 1);
    let (writer, _) = app.key(&key, "read,write").await;
    let answer = import(&app, &writer, text(&[conversation_line("b")])).await;
    answer.refused(403, "Admin scope required to import conversations");
    assert_eq!(app.number(COUNT_CONVERSATIONS).await, 1);
}

#[apply(on_both!)]
async fn many_participants_take_several_lines(backend: Backend) {
    const USERS: &str = "INSERT INTO users (email, email_key, username, username_key, \
        password_hash, created_at, updated_at) \
        SELECT n || '@x', n || '@x', n || '', n || '', 'x', $1, $1 FROM ";
    let other_backend = backend.another();
    let (here, there) = (TestApp::new(&backend).await, TestApp::new(&other_backend).await);
    let (key, other_key) = (here.admin().await, there.admin().await);
    for app in [&here, &there] {
        let mut tx = app.state.db.begin().await.unwrap();
        let statement = query(&mut tx, USERS).bind(app.state.clock.now());
        let numbers = if backend.is_sqlite() {
            "(WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 2500) SELECT n FROM s)"
        } else {
            "generate_series(1, 2500) AS s (n)"
        };
        statement.push(numbers).execute().await.unwrap();
        tx.commit().await.unwrap();
    }
    let id = here.conversation(&key, &[]).await;
    let join = "INSERT INTO participants (conversation_id, user_id) SELECT $1, id FROM users";
    let mut tx = here.state.db.begin().await.unwrap();
    query(&mut tx, join).bind(id).execute().await.unwrap();
    tx.commit().await.unwrap();
    let exported = export(&here, &key).await;
    let sizes: Vec<_> = parsed(&exported)
        .iter()
        .map(|line| line["participants"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [1000, 1000, 500]);
    let report = import(&there, &other_key, exported.clone()).await.expect(200);
    assert_eq!(report["unmatched"], json!([]));
    assert_eq!(export(&there, &other_key).await, exported);
    drop(there);
    other_backend.remove().await;
}

#[apply(on_both!)]
async fn a_long_conversation_is_buffered_in_a_temporary_file_that_is_removed(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sent = vec![conversation_line("a")];
    sent.extend((0..20_000).map(|n| message_line(&format!("{n} {}", "x".repeat(300)))));
    let report = import(&app, &key, text(&sent)).await.expect(200);
    assert_eq!(report["messages"], 20_000);
    let exported = export(&app, &key).await;
    assert_eq!(exported.lines().count(), 20_001);
    let last = parsed(exported.lines().last().unwrap());
    assert!(last[0]["content"].as_str().unwrap().starts_with("19999 "));
    let names =
        std::fs::read_dir(backend.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let strange: Vec<_> =
        names.filter(|name| !name.to_string_lossy().starts_with("octopus.db")).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[apply(on_both!)]
async fn after_a_disconnect_the_complete_conversations_stay(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sending = StreamedRequest::begin(&app, &key).await;
    sending
        .send(&text(&[
            conversation_line("a"),
            message_line("one"),
            conversation_line("b"),
            message_line("two"),
        ]))
        .await;
    wait_until(&app, COUNT_CONVERSATIONS, 1).await;
    drop(sending);
    let end = Instant::now() + Duration::from_secs(10);
    while !app.state.tasks.is_empty() {
        assert!(Instant::now() < end, "the import continues without its client");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(counts(&app).await, [1, 1, 0]);
    let whole = text(&[
        conversation_line("a"),
        message_line("one"),
        conversation_line("b"),
        message_line("two"),
    ]);
    let report = import(&app, &key, whole).await.expect(200);
    assert_eq!((&report["imported"], &report["skipped"]), (&json!(1), &json!(1)));
}

#[apply(on_both!)]
async fn a_slow_client_can_finish_and_a_silent_one_is_timed_out(backend: Backend) {
    let limits = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("REQUEST_TIMEOUT_SECONDS", "1"),
        ("IDLE_TIMEOUT_SECONDS", "2"),
    ];
    let app = TestApp::with(&backend, &limits).await;
    let key = app.admin().await;
    let mut sending = StreamedRequest::begin(&app, &key).await;
    sending.send(&text(&[conversation_line("a")])).await;
    for n in 0..8 {
        sleep(Duration::from_millis(500)).await;
        sending.send(&text(&[message_line(&n.to_string())])).await;
    }
    let (status, report) = sending.end().await;
    assert_eq!((status, &report["messages"]), (200, &json!(8)), "{report}");

    let mut sending = StreamedRequest::begin(&app, &key).await;
    sending.send(&text(&[conversation_line("b"), message_line("x")])).await;
    let (status, answer) = sending.answer().await;
    assert_eq!(
        (status, &answer["detail"]),
        (408, &json!("The request body took too long to arrive"))
    );
    assert_eq!(app.number(COUNT_CONVERSATIONS).await, 1);
}

#[apply(on_both!)]
async fn others_write_while_an_import_waits_for_its_client(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sending = vec![];
    // More than either database has connections.
    for n in 0..20 {
        let mut one = StreamedRequest::begin(&app, &key).await;
        one.send(&text(&[conversation_line(&n.to_string()), message_line("x")])).await;
        sending.push(one);
    }
    for _ in 0..20 {
        app.conversation(&key, &[]).await;
    }
    assert_eq!(app.number(COUNT_CONVERSATIONS).await, 20);
    for one in sending {
        assert_eq!(one.end().await.0, 200);
    }
    assert_eq!(app.number(COUNT_CONVERSATIONS).await, 40);
}

#[apply(on_both!)]
async fn a_partly_imported_conversation_is_invisible_and_does_not_block_other_writes(
    backend: Backend,
) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let (session, other) = (app.session_of(alice).await, app.conversation(&key, &[]).await);
    let mut first = conversation_line("a");
    first["participants"] = json!([{"username": "alice"}]);
    let mut sent = vec![first];
    sent.extend((0..20_000).map(|n| message_line(&n.to_string())));
    let importing = async { import(&app, &key, text(&sent)).await.expect(200) };
    let looking = async {
        let mut before = 0;
        loop {
            let seen = app.get(CONVERSATIONS_PATH).key(&key).send().await.expect(200);
            let own = app.get(CONVERSATIONS_PATH).session(&session).send().await.expect(200);
            let body = json!({"role": "user", "content": "x"});
            let path = format!("{CONVERSATIONS_PATH}/{other}/messages");
            app.post(&path, body).key(&key).send().await.expect(201);
            if let Some(imported) = own.as_array().unwrap().first() {
                assert_eq!(imported["messages"][19]["content"], "19999");
                return before;
            }
            before += usize::from(seen.as_array().unwrap().len() == 1);
        }
    };
    let (report, before) = tokio::join!(importing, looking);
    assert_eq!((&report["messages"], &report["unmatched"]), (&json!(20_000), &json!([])));
    assert!(before > 0, "no read happened during the write");
    let events = "SELECT CAST(COUNT(*) AS BIGINT) FROM conversation_events e JOIN conversations c \
        ON c.id = e.conversation_id WHERE c.external_id = 'a'";
    assert_eq!(app.number(events).await, 0);
}

#[apply(on_both!)]
async fn a_long_conversation_that_is_not_finished_is_removed(backend: Backend) {
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("CLEANUP_INTERVAL_SECONDS", "1")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let (key, id) = app.key(&admin, "admin").await;
    let mut sent = vec![conversation_line("a")];
    sent.extend((0..60_000).map(|n| message_line(&n.to_string())));
    let revoking = async {
        wait_until(&app, COUNT_CONVERSATIONS, 1).await;
        let change = json!({"is_active": false});
        app.patch(&format!("/api/v1/api-keys/{id}"), change).key(&admin).send().await.expect(200);
    };
    let (answer, ()) = tokio::join!(import(&app, &key, text(&sent)), revoking);
    assert_eq!(answer.status, 401, "{}", answer.text);
    assert_eq!(app.get(CONVERSATIONS_PATH).key(&admin).send().await.expect(200), json!([]));
    wait_until(&app, COUNT_CONVERSATIONS, 0).await;
    assert_eq!(counts(&app).await, [0; 3]);
    // A second import of the same conversation succeeds.
    sent.truncate(10_001);
    assert_eq!(import(&app, &admin, text(&sent)).await.expect(200)["imported"], 1);
}

#[apply(on_both!)]
async fn an_import_stops_when_its_key_is_revoked(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for change in [json!({"is_active": false}), json!({"scopes": "read"})] {
        let before = app.number(COUNT_CONVERSATIONS).await;
        let (key, id) = app.key(&admin, "admin").await;
        let mut sending = StreamedRequest::begin(&app, &key).await;
        let names = [format!("{id} a"), format!("{id} b")];
        sending.send(&text(&[conversation_line(&names[0]), conversation_line(&names[1])])).await;
        let end = Instant::now() + Duration::from_secs(10);
        while app.number(COUNT_CONVERSATIONS).await == before {
            assert!(Instant::now() < end);
            sleep(Duration::from_millis(10)).await;
        }
        app.patch(&format!("/api/v1/api-keys/{id}"), change).key(&admin).send().await.expect(200);
        assert_eq!(sending.end().await.0, 401);
        assert_eq!(app.number(COUNT_CONVERSATIONS).await, before + 1);
    }
}

#[apply(on_both!)]
async fn an_import_ends_when_the_server_stops(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sending = StreamedRequest::begin(&app, &key).await;
    sending.send(&text(&[conversation_line("a"), conversation_line("b")])).await;
    wait_until(&app, COUNT_CONVERSATIONS, 1).await;
    let started = Instant::now();
    let stopping = tokio::spawn(app.stop());
    let (status, answer) = sending.answer().await;
    assert_eq!((status, &answer["detail"]), (503, &json!("The server is shutting down")));
    stopping.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
}
