//! Imports: what is taken in, what is not, and that nobody waits for who sends it.

use crate::support::{Answer, Backend, TestApp, tests};
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

tests!(on_both: [
    an_export_that_is_imported_is_exported_as_it_was,
    a_user_s_export_can_be_imported,
    importing_again_changes_nothing,
    the_same_import_twice_at_once_is_one,
    people_are_known_by_email_or_else_by_username,
    people_who_are_no_users_are_reported_and_left_out,
    history_is_not_attached_to_a_name_that_was_taken_later,
    what_follows_an_import_goes_on_where_it_ended,
    a_bad_line_is_named_and_nothing_of_its_conversation_stays,
    lines_belong_to_a_conversation_and_it_has_all_of_them,
    what_was_deleted_has_no_content,
    a_line_has_at_most_a_mebibyte,
    only_lines_of_json_are_taken,
    many_participants_take_several_lines,
    a_long_conversation_is_put_aside_in_a_file_and_no_file_is_left,
    a_client_that_hangs_up_leaves_what_was_whole,
    a_slow_client_is_let_finish_and_a_silent_one_is_not,
    others_write_while_an_import_waits_for_its_client,
    nobody_finds_half_a_long_conversation_and_others_write_meanwhile,
    a_long_conversation_that_is_not_finished_is_removed,
    a_key_revoked_meanwhile_imports_no_more,
    an_import_ends_when_the_server_stops,
]);

const TALKS: &str = "/api/v1/conversations";
const AT: &str = "2026-01-31T09:30:00.000000Z";

async fn import(app: &TestApp, key: &str, text: impl Into<String>) -> Answer {
    let path = "/api/v1/conversations/import?attach_newer_accounts=true";
    let call = app.act(path).key(key);
    call.header("Content-Type", "application/x-ndjson").body(text.into()).send().await
}

/// These lines as a text.
fn text(lines: &[Value]) -> String {
    lines.iter().flat_map(|line| [line.to_string(), "\n".to_owned()]).collect()
}

fn talk(external_id: &str) -> Value {
    json!({"type": "conversation", "external_id": external_id, "created_at": AT})
}

fn said(content: &str) -> Value {
    json!({"type": "message", "role": "user", "content": content, "created_at": AT})
}

/// The export of every conversation, by id.
async fn export(app: &TestApp, key: &str) -> String {
    let ids: Vec<(i64,)> = app.rows("SELECT id FROM conversations ORDER BY id").await;
    let mut all = String::new();
    for (id,) in ids {
        let answer = app.get(&format!("{TALKS}/{id}/export")).key(key).send().await;
        lines(&answer);
        all += &answer.text;
    }
    all
}

/// How many conversations, messages and events there are.
async fn counts(app: &TestApp) -> [i64; 3] {
    [
        app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM conversations").await,
        app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM messages").await,
        app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM conversation_events").await,
    ]
}

/// A request whose body is sent bit by bit.
struct Sending(TcpStream);

impl Sending {
    async fn begin(app: &TestApp, key: &str) -> Self {
        let head = format!(
            "POST {TALKS}/import?attach_newer_accounts=true HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {key}\r\n\
             Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.0.write_all(chunk.as_bytes()).await.unwrap();
    }

    /// Ends the body: the status and the body of the answer.
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

/// Waits until `sql` gives `n`.
async fn wait_until(app: &TestApp, sql: &'static str, n: i64) {
    let end = Instant::now() + Duration::from_mins(1);
    while app.number(sql).await != n {
        assert!(Instant::now() < end, "{sql} does not become {n}");
        sleep(Duration::from_millis(10)).await;
    }
}

const CONVERSATIONS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM conversations";

/// Users of every installation in these tests, and one of none.
const PEOPLE: [&str; 4] = ["alice", "Bob", "çelik", "nobody"];

fn odd_text(length: &str) -> impl Strategy<Value = String> + use<> {
    // Anything but U+0000: other control characters, quotes, other scripts, what JSON escapes.
    prop_oneof![
        proptest::string::string_regex(&format!("[^\\x00]{length}")).unwrap(),
        Just("\u{1}\u{7f}\u{2028}\u{feff}\"\\\r\n\t😀e\u{301}日本語".to_owned()),
    ]
}

fn moment() -> impl Strategy<Value = String> {
    (0..4_000_000_000_000_000_i64).prop_map(|microseconds| {
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
        odd_text("{0,9}").prop_map(Value::from),
    ];
    let value = scalar.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(odd_text("{0,5}"), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let object = prop::collection::btree_map(odd_text("{0,5}"), value, 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()));
    prop_oneof![Just(Value::Null), object]
}

fn person() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        prop::sample::select(&PEOPLE[..])
            .prop_map(|name| json!({"username": name, "email": format!("{name}@example.com")})),
    ]
}

prop_compose! {
    fn message()(
        role in prop::sample::select(&["user", "assistant", "system"][..]),
        content in odd_text("{1,60}"),
        user in person(),
        metadata in metadata(),
        created_at in moment(),
        edited_at in prop::option::of(moment()),
        deleted_at in prop::option::weighted(0.2, moment()),
    ) -> Value {
        let (content, metadata) =
            if deleted_at.is_some() { (String::new(), Value::Null) } else { (content, metadata) };
        json!({"type": "message", "role": role, "content": content, "user": user,
            "metadata": metadata, "created_at": created_at, "edited_at": edited_at,
            "deleted_at": deleted_at})
    }
}

prop_compose! {
    /// A conversation as an export has it, but for people whom nobody knows.
    fn conversation()(
        external_id in odd_text("{1,20}"),
        unique in any::<u128>(),
        title in prop::option::of(odd_text("{0,30}")),
        metadata in metadata(),
        created_at in moment(),
        updated_at in moment(),
        participants in prop::sample::subsequence(PEOPLE.to_vec(), 0..=PEOPLE.len()),
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

/// `lines` without whom nobody knows: what an export says after they were taken in.
fn without_strangers(lines: &[Value]) -> Vec<Value> {
    let is_stranger = |person: &Value| person["username"] == "nobody";
    let mut lines = lines.to_vec();
    for line in &mut lines {
        if let Some(Value::Array(participants)) = line.get_mut("participants") {
            participants.retain(|person| !is_stranger(person));
        } else if is_stranger(&line["user"]) {
            line["user"] = Value::Null;
        }
    }
    lines
}

async fn an_export_that_is_imported_is_exported_as_it_was(backend: Backend) {
    let other_backend = backend.another();
    let apps = [TestApp::new(&backend).await, TestApp::new(&other_backend).await];
    let keys = [apps[0].admin().await, apps[1].admin().await];
    // The ids of the same users differ.
    for (app, names) in apps.iter().zip([["alice", "Bob", "çelik"], ["çelik", "alice", "Bob"]]) {
        for name in names {
            register(app, name).await;
        }
    }
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let round = async |sent: Vec<Vec<Value>>| -> Result<(), TestCaseError> {
        for (app, key) in apps.iter().zip(&keys) {
            backend_empty(app).await;
            assert_eq!(counts(app).await, [0; 3], "{key}");
        }
        let expected = text(&without_strangers(&sent.concat()));
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

async fn backend_empty(app: &TestApp) {
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
        here.post(&format!("{TALKS}/{id}/messages"), body).key(&key).send().await.expect(201);
    }
    // By a key with all emails, and by herself with only her own.
    let session = here.session_of(alice).await;
    for call in [
        here.get(&format!("/api/v1/users/{alice}/export")).key(&key),
        here.get("/api/v1/users/me/export").session(&session),
    ] {
        let answer = call.send().await;
        backend_empty(&there).await;
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

async fn importing_again_changes_nothing(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let sent = text(&[talk("a"), said("one"), said("two"), talk("b"), talk("c"), said("three")]);
    let report = import(&app, &key, sent.clone()).await.expect(200);
    assert_eq!((&report["imported"], &report["messages"]), (&json!(3), &json!(3)));
    let before = export(&app, &key).await;
    let report = import(&app, &key, sent).await.expect(200);
    assert_eq!((&report["imported"], &report["skipped"]), (&json!(0), &json!(3)));
    assert_eq!((&report["messages"], export(&app, &key).await), (&json!(0), before.clone()));
    // What has changed on either side since stays as it is here.
    let changed = text(&[talk("a"), said("another"), talk("d")]);
    let report = import(&app, &key, changed).await.expect(200);
    assert_eq!((&report["imported"], &report["skipped"]), (&json!(1), &json!(1)));
    assert!(export(&app, &key).await.starts_with(&before));
    // Its own export is known, too.
    let id = app.conversation(&key, &[]).await;
    let own = app.get(&format!("{TALKS}/{id}/export")).key(&key).send().await.text;
    let report = import(&app, &key, own).await.expect(200);
    assert_eq!((&report["imported"], &report["skipped"]), (&json!(0), &json!(1)));
}

async fn the_same_import_twice_at_once_is_one(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sent = vec![];
    for n in 0..20 {
        sent.push(talk(&n.to_string()));
        sent.extend((0..20).map(|n| said(&n.to_string())));
    }
    let sent = text(&sent);
    let call = || {
        let call = app.act("/api/v1/conversations/import").key(&key);
        call.header("Content-Type", "application/x-ndjson; charset=utf-8").body(sent.clone())
    };
    let mut imported = 0;
    for answer in app.at_once(4, call).await {
        let report = answer.expect(200);
        let number = |name: &str| report[name].as_i64().unwrap();
        assert_eq!(number("imported") + number("skipped"), 20);
        assert_eq!(number("messages"), number("imported") * 20);
        imported += number("imported");
    }
    assert_eq!((imported, counts(&app).await), (20, [20, 400, 0]));
}

async fn people_are_known_by_email_or_else_by_username(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let cases = [
        (json!({"email": "ALICE@example.com"}), Some(alice)),
        (json!({"username": "ALICE"}), Some(alice)),
        (json!({"username": "alice", "email": "bob@example.com"}), Some(bob)),
        (json!({"username": "unknown", "email": "bob@example.com"}), Some(bob)),
        // Somebody else of the same name.
        (json!({"username": "bob", "email": "bob@elsewhere.example"}), None),
        (json!({"username": "bob@example.com"}), None),
        (json!({"email": "bob"}), None),
        (Value::Null, None),
    ];
    let mut sent = vec![talk("a")];
    for (person, _) in &cases {
        let mut line = said("x");
        line["user"] = person.clone();
        sent.push(line);
    }
    import(&app, &key, text(&sent)).await.expect(200);
    let found: Vec<(Option<i64>,)> = app.rows("SELECT user_id FROM messages ORDER BY seq").await;
    let expected: Vec<_> = cases.iter().map(|(_, id)| (*id,)).collect();
    assert_eq!(found, expected);
    // Who spoke need not take part.
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM participants").await, 0);
}

async fn people_who_are_no_users_are_reported_and_left_out(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.user("alice").await;
    let zoe = json!({"username": "zoe", "email": "zoe@example.com"});
    let (mut first, mut message) = (talk("a"), said("x"));
    first["participants"] = json!([{"username": "alice"}, zoe]);
    message["user"] = zoe.clone();
    let sent = [first, message.clone(), message.clone(), said("y")];
    let report = import(&app, &key, text(&sent)).await.expect(200);
    assert_eq!(report["unmatched"], json!([zoe]));
    assert_eq!(report["unmatched_truncated"], false);
    let exported = parsed(&export(&app, &key).await);
    let alice = json!({"username": "alice", "email": "alice@example.com"});
    assert_eq!(
        (&exported[0]["participants"], &exported[1]["user"]),
        (&json!([alice]), &json!(null))
    );
    // The report has an end.
    let mut sent = vec![talk("b")];
    for n in 0..300 {
        message["user"] = json!({"username": format!("stranger {n}")});
        sent.push(message.clone());
    }
    let report = import(&app, &key, text(&sent)).await.expect(200);
    assert_eq!(report["unmatched"].as_array().unwrap().len(), 100);
    assert_eq!((&report["unmatched_truncated"], &report["messages"]), (&json!(true), &json!(300)));
}

/// Whoever registers somebody's email before their history is imported does not get the history.
async fn history_is_not_attached_to_a_name_that_was_taken_later(backend: Backend) {
    const OTHERS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM messages WHERE user_id IS NOT NULL";
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (mallory, eve) = (app.user("mallory").await, app.user("eve").await);
    app.advance(chrono::TimeDelta::days(10));
    let between = app.state.clock.now();
    app.advance(chrono::TimeDelta::days(10));
    // An older account takes the email by a change.
    let change = json!({"email": "victim@example.com"});
    app.put(&format!("/api/v1/users/{eve}"), change).key(&key).send().await.expect(200);
    let victim = json!({"username": "victim", "email": "Victim@Example.com"});
    let other = json!({"username": "\u{ff4d}allory"}); // in another spelling
    let lines = |external_id: &str, at: String| {
        let mut talk = talk(external_id);
        talk["participants"] = json!([victim, other]);
        talk["created_at"] = json!(at);
        let said = |user: &Value| {
            let mut said = said("private");
            said["user"] = user.clone();
            said["created_at"] = json!(at);
            said
        };
        text(&[talk, said(&victim), said(&other)])
    };
    let send = async |path: &str, body: String| {
        let call = app.act(path).key(&key).header("Content-Type", "application/x-ndjson");
        call.body(body).send().await.expect(200)
    };
    let path = format!("{TALKS}/import");
    let report = send(&path, lines("a", AT.to_owned())).await;
    let of_eve = json!({"person": victim, "user_id": eve});
    let of_mallory =
        json!({"person": {"username": "\u{ff4d}allory", "email": null}, "user_id": mallory});
    assert_eq!(report["newer_accounts"], json!([of_eve, of_mallory]));
    assert_eq!((&report["matched"], &report["unmatched"]), (&json!([]), &json!([])));
    assert_eq!(app.number(OTHERS).await, 0);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM participants").await, 0);
    // What was said after mallory registered is theirs.
    let report = send(&path, lines("b", between.to_rfc3339())).await;
    assert_eq!(report["newer_accounts"], json!([of_eve]));
    assert_eq!(report["matched"], json!([of_mallory]));
    assert_eq!(app.number(OTHERS).await, 1);
    // The operator may say otherwise.
    let report =
        send(&format!("{path}?attach_newer_accounts=true"), lines("c", AT.to_owned())).await;
    assert_eq!(report["matched"], json!([of_eve, of_mallory]));
    assert_eq!(report["newer_accounts"], json!([]));
    assert_eq!(app.number(OTHERS).await, 3);
}

async fn what_follows_an_import_goes_on_where_it_ended(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sent = vec![talk("a")];
    sent.extend((0..300).map(|n| said(&n.to_string())));
    import(&app, &key, text(&sent)).await.expect(200);
    let (id, seq): (i64, i64) = app.rows("SELECT id, last_seq FROM conversations").await.remove(0);
    assert_eq!((seq, counts(&app).await), (300, [1, 300, 0]));
    let shown = app.get(&format!("{TALKS}/{id}")).key(&key).send().await.expect(200);
    assert_eq!(shown["created_at"], AT);
    assert_eq!((&shown["updated_at"], &shown["last_message_at"]), (&json!(AT), &json!(AT)));
    assert_eq!(shown["messages"][299]["content"], "299");
    let body = json!({"role": "user", "content": "next"});
    let next = app.post(&format!("{TALKS}/{id}/messages"), body).key(&key).send().await.expect(201);
    assert_eq!(next["seq"], 301);
    assert_eq!(counts(&app).await, [1, 301, 1]);
}

async fn a_bad_line_is_named_and_nothing_of_its_conversation_stays(backend: Backend) {
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
    let (talk, said) = (talk("bad"), said("x"));
    for (n, (line, places)) in [
        ("{".to_owned(), &["body.5"][..]),
        ("[]".to_owned(), &["body.5"]),
        ("{}".to_owned(), &["body.5.type"]),
        (with(said.clone(), "type", json!("reply")), &["body.5.type"]),
        (with(said.clone(), "type", json!(1)), &["body.5.type"]),
        (with(said.clone(), "id", json!(1)), &["body.5.id"]),
        (with(said.clone(), "role", json!("tool")), &["body.5.role"]),
        (with(said.clone(), "content", json!(1)), &["body.5.content"]),
        (with(said.clone(), "content", json!("a\0b")), &["body.5.content"]),
        (without(said.clone(), "content"), &["body.5.content"]),
        (without(said.clone(), "created_at"), &["body.5.created_at"]),
        (with(said.clone(), "created_at", json!("yesterday")), &["body.5.created_at"]),
        (with(said.clone(), "user", json!({})), &["body.5.user"]),
        (with(said.clone(), "user", json!({"id": 1})), &["body.5.user.id"]),
        (with(said.clone(), "user", json!({"username": ""})), &["body.5.user.username"]),
        (with(said.clone(), "user", json!("alice")), &["body.5.user"]),
        (with(said, "metadata", json!([])), &["body.5.metadata"]),
        (without(talk.clone(), "external_id"), &["body.5.external_id"]),
        (with(talk.clone(), "external_id", json!("")), &["body.5.external_id"]),
        (without(talk.clone(), "created_at"), &["body.5.created_at"]),
        (with(talk.clone(), "title", json!("x".repeat(256))), &["body.5.title"]),
        (with(talk.clone(), "id", json!(1)), &["body.5.id"]),
        (
            with(talk, "participants", json!([{"username": "a"}, {"email": "x".repeat(255)}])),
            &["body.5.participants.1.email"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (good, open) = (format!("good {n}"), format!("open {n}"));
        let sent =
            text(&[self::talk(&good), self::said("one"), self::talk(&open), self::said("two")]);
        let before = counts(&app).await;
        let answer =
            import(&app, &key, format!("{sent}{line}\n{}", text(&[self::said("x")]))).await;
        // A conversation ends where the next begins; what else a bad line is, nobody knows.
        let whole = if line.contains(r#""type":"conversation""#) { 2 } else { 1 };
        let stays = answer["detail"].as_array().unwrap().last().unwrap()["msg"].to_string();
        assert!(stays.contains(&format!("stay: {whole} imported, 0 were here")), "{stays}");
        answer.invalid(&[places, &["body.5"]].concat());
        let expected = [before[0] + whole, before[1] + whole, 0];
        assert_eq!(counts(&app).await, expected, "{line}");
    }
    let answer = import(&app, &key, "\n\nnonsense").await;
    answer.invalid(&["body.3"]);
}

async fn lines_belong_to_a_conversation_and_it_has_all_of_them(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let user = json!({"type": "user", "username": "alice", "whatever": [1]});
    import(&app, &key, text(&[said("x")])).await.invalid(&["body.1.type"]);
    let participants = json!({"type": "participants", "participants": []});
    import(&app, &key, text(&[participants])).await.invalid(&["body.1.type"]);
    let answer =
        import(&app, &key, text(&[user.clone(), talk("a"), user.clone(), said("x")])).await;
    answer.invalid(&["body.4", "body.4.type"]);
    let counted = |external_id: &str, count: i64| {
        let mut line = talk(external_id);
        line["message_count"] = json!(count);
        line
    };
    // An export that was cut off.
    let answer = import(&app, &key, text(&[counted("b", 2), said("x")])).await;
    let msg = answer["detail"][0]["msg"].to_string();
    assert!(msg.contains("1 messages follow"), "{msg}");
    answer.invalid(&["body.1.message_count"]);
    let answer = import(&app, &key, text(&[counted("b", 0), said("x"), talk("c")])).await;
    answer.invalid(&["body.1.message_count"]);
    assert_eq!(counts(&app).await, [1, 0, 0]);
    let report = import(&app, &key, text(&[counted("b", 1), said("x"), user])).await.expect(200);
    assert_eq!((&report["imported"], &report["messages"]), (&json!(1), &json!(1)));
    let nothing = json!({"imported": 0, "skipped": 0, "messages": 0, "unmatched": [],
        "unmatched_truncated": false, "matched": [], "matched_truncated": false,
        "newer_accounts": [], "newer_accounts_truncated": false});
    assert_eq!(import(&app, &key, "").await.expect(200), nothing);
}

async fn what_was_deleted_has_no_content(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut line = said("hunter2");
    line["deleted_at"] = json!(AT);
    line["metadata"] = json!({"secret": "hunter2"});
    import(&app, &key, text(&[talk("a"), line])).await.expect(200);
    let stored: Vec<(String, Option<String>)> =
        app.rows("SELECT content, metadata FROM messages").await;
    assert_eq!(stored, [(String::new(), None)]);
}

async fn a_line_has_at_most_a_mebibyte(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    // No two pairs of characters alike: as much as an index can have of one message.
    let odd: String = (0..249_999_u32).filter_map(|n| char::from_u32(0x1_0000 + n)).collect();
    import(&app, &key, text(&[talk("odd"), said(&odd)])).await.expect(200);
    backend_empty(&app).await;
    // Longer than what can be posted, and than a whole body may be elsewhere.
    let long = said(&"é".repeat(500_000));
    let sent = text(&[talk("a"), long.clone(), long.clone(), long.clone()]);
    let report = import(&app, &key, sent).await.expect(200);
    assert_eq!(report["messages"], 3);
    let exported = export(&app, &key).await;
    assert!(parsed(&exported)[3]["content"] == long["content"]);
    let too_long = said(&"x".repeat(1_000_001));
    let answer = import(&app, &key, text(&[talk("b"), too_long])).await;
    answer.invalid(&["body.2.content"]);
    let beyond = said(&"x".repeat(2_000_000));
    import(&app, &key, text(&[talk("b"), beyond])).await.invalid(&["body.2"]);
    assert_eq!(counts(&app).await, [1, 3, 0]);
}

async fn only_lines_of_json_are_taken(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let call = || app.act("/api/v1/conversations/import").key(&key).body(text(&[talk("a")]));
    for wrong in ["application/json", "text/plain", "application/x-www-form-urlencoded", ""] {
        let answer = call().header("Content-Type", wrong).send().await;
        let detail =
            "The request body must be lines of JSON: send Content-Type: application/x-ndjson";
        answer.refused(415, detail);
    }
    assert_eq!(call().send().await.expect(200)["imported"], 1);
    let (writer, _) = app.key(&key, "read,write").await;
    let answer = import(&app, &writer, text(&[talk("b")])).await;
    answer.refused(403, "Admin scope required to import conversations");
    assert_eq!(app.number(CONVERSATIONS).await, 1);
}

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

async fn a_long_conversation_is_put_aside_in_a_file_and_no_file_is_left(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sent = vec![talk("a")];
    sent.extend((0..20_000).map(|n| said(&format!("{n} {}", "x".repeat(300)))));
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

async fn a_client_that_hangs_up_leaves_what_was_whole(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sending = Sending::begin(&app, &key).await;
    sending.send(&text(&[talk("a"), said("one"), talk("b"), said("two")])).await;
    wait_until(&app, CONVERSATIONS, 1).await;
    drop(sending);
    let end = Instant::now() + Duration::from_secs(10);
    while !app.state.tasks.is_empty() {
        assert!(Instant::now() < end, "the import goes on without its client");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(counts(&app).await, [1, 1, 0]);
    let whole = text(&[talk("a"), said("one"), talk("b"), said("two")]);
    let report = import(&app, &key, whole).await.expect(200);
    assert_eq!((&report["imported"], &report["skipped"]), (&json!(1), &json!(1)));
}

async fn a_slow_client_is_let_finish_and_a_silent_one_is_not(backend: Backend) {
    let limits = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("REQUEST_TIMEOUT_SECONDS", "1"),
        ("IDLE_TIMEOUT_SECONDS", "2"),
    ];
    let app = TestApp::with(&backend, &limits).await;
    let key = app.admin().await;
    let mut sending = Sending::begin(&app, &key).await;
    sending.send(&text(&[talk("a")])).await;
    for n in 0..8 {
        sleep(Duration::from_millis(500)).await;
        sending.send(&text(&[said(&n.to_string())])).await;
    }
    let (status, report) = sending.end().await;
    assert_eq!((status, &report["messages"]), (200, &json!(8)), "{report}");

    let mut sending = Sending::begin(&app, &key).await;
    sending.send(&text(&[talk("b"), said("x")])).await;
    let (status, answer) = sending.answer().await;
    assert_eq!(
        (status, &answer["detail"]),
        (408, &json!("The request's body took too long to arrive"))
    );
    assert_eq!(app.number(CONVERSATIONS).await, 1);
}

async fn others_write_while_an_import_waits_for_its_client(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sending = vec![];
    // More than there are connections to either database.
    for n in 0..20 {
        let mut one = Sending::begin(&app, &key).await;
        one.send(&text(&[talk(&n.to_string()), said("x")])).await;
        sending.push(one);
    }
    for _ in 0..20 {
        app.conversation(&key, &[]).await;
    }
    assert_eq!(app.number(CONVERSATIONS).await, 20);
    for one in sending {
        assert_eq!(one.end().await.0, 200);
    }
    assert_eq!(app.number(CONVERSATIONS).await, 40);
}

async fn nobody_finds_half_a_long_conversation_and_others_write_meanwhile(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let (session, other) = (app.session_of(alice).await, app.conversation(&key, &[]).await);
    let mut first = talk("a");
    first["participants"] = json!([{"username": "alice"}]);
    let mut sent = vec![first];
    sent.extend((0..20_000).map(|n| said(&n.to_string())));
    let importing = async { import(&app, &key, text(&sent)).await.expect(200) };
    let looking = async {
        let mut before = 0;
        loop {
            let seen = app.get(TALKS).key(&key).send().await.expect(200);
            let own = app.get(TALKS).session(&session).send().await.expect(200);
            let body = json!({"role": "user", "content": "x"});
            let path = format!("{TALKS}/{other}/messages");
            app.post(&path, body).key(&key).send().await.expect(201);
            if let Some(talk) = own.as_array().unwrap().first() {
                assert_eq!(talk["messages"][19]["content"], "19999");
                return before;
            }
            before += usize::from(seen.as_array().unwrap().len() == 1);
        }
    };
    let (report, before) = tokio::join!(importing, looking);
    assert_eq!((&report["messages"], &report["unmatched"]), (&json!(20_000), &json!([])));
    assert!(before > 0, "nobody looked while it was written");
    let events = "SELECT CAST(COUNT(*) AS BIGINT) FROM conversation_events e JOIN conversations c \
        ON c.id = e.conversation_id WHERE c.external_id = 'a'";
    assert_eq!(app.number(events).await, 0);
}

async fn a_long_conversation_that_is_not_finished_is_removed(backend: Backend) {
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("CLEANUP_INTERVAL_SECONDS", "1")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let (key, id) = app.key(&admin, "admin").await;
    let mut sent = vec![talk("a")];
    sent.extend((0..60_000).map(|n| said(&n.to_string())));
    let revoking = async {
        wait_until(&app, CONVERSATIONS, 1).await;
        let change = json!({"is_active": false});
        app.patch(&format!("/api/v1/api-keys/{id}"), change).key(&admin).send().await.expect(200);
    };
    let (answer, ()) = tokio::join!(import(&app, &key, text(&sent)), revoking);
    assert_eq!(answer.status, 401, "{}", answer.text);
    assert_eq!(app.get(TALKS).key(&admin).send().await.expect(200), json!([]));
    wait_until(&app, CONVERSATIONS, 0).await;
    assert_eq!(counts(&app).await, [0; 3]);
    // Nothing is in the way of another try.
    sent.truncate(10_001);
    assert_eq!(import(&app, &admin, text(&sent)).await.expect(200)["imported"], 1);
}

async fn a_key_revoked_meanwhile_imports_no_more(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for change in [json!({"is_active": false}), json!({"scopes": "read"})] {
        let before = app.number(CONVERSATIONS).await;
        let (key, id) = app.key(&admin, "admin").await;
        let mut sending = Sending::begin(&app, &key).await;
        let names = [format!("{id} a"), format!("{id} b")];
        sending.send(&text(&[talk(&names[0]), talk(&names[1])])).await;
        let end = Instant::now() + Duration::from_secs(10);
        while app.number(CONVERSATIONS).await == before {
            assert!(Instant::now() < end);
            sleep(Duration::from_millis(10)).await;
        }
        app.patch(&format!("/api/v1/api-keys/{id}"), change).key(&admin).send().await.expect(200);
        assert_eq!(sending.end().await.0, 401);
        assert_eq!(app.number(CONVERSATIONS).await, before + 1);
    }
}

async fn an_import_ends_when_the_server_stops(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut sending = Sending::begin(&app, &key).await;
    sending.send(&text(&[talk("a"), talk("b")])).await;
    wait_until(&app, CONVERSATIONS, 1).await;
    let begun = Instant::now();
    let stopping = tokio::spawn(app.stop());
    let (status, answer) = sending.answer().await;
    assert_eq!((status, &answer["detail"]), (503, &json!("The server is shutting down")));
    stopping.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}
