//! Conversations: participants, and messages in order.

use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use octopus::features::conversations::service;
use octopus::http::Page;
use octopus::security::Visibility;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

const CONVERSATIONS: &str = "/api/v1/conversations";
const NOT_FOUND: &str = "Conversation not found";
/// The limit, in bytes, for embedded messages in one response.
const CAP: usize = 16 * 1024 * 1024;

fn conversation_path(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}")
}

fn messages(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}/messages")
}

fn participants(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}/participants")
}

fn user_message(content: impl Into<Value>) -> Value {
    json!({"role": "user", "content": content.into()})
}

/// The values of one field in each entry of a list.
fn each(list: &Value, field: &str) -> Vec<Value> {
    list.as_array().unwrap().iter().map(|entry| entry[field].clone()).collect()
}

#[apply(on_both!)]
async fn a_new_conversation_has_the_shape_of_the_contract(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let body = json!({"title": "Planning the trip", "participant_ids": [bob, alice]});
    let answer = app.post(CONVERSATIONS, body).key(&key).send().await.expect(201);
    let created_at = answer["created_at"].as_str().unwrap();
    let expected = json!({
        "id": 1, "title": "Planning the trip", "created_at": created_at, "updated_at": created_at,
        "participants": [
            {"id": alice, "username": "alice", "email": "alice@example.com"},
            {"id": bob, "username": "bob", "email": "bob@example.com"},
        ],
        "participant_count": 2, "participants_truncated": false,
        "message_count": 0, "messages": [], "messages_truncated": false, "last_message_at": null,
        "metadata": null,
    });
    assert_eq!(answer, expected);
    assert_eq!(app.get(&conversation_path(1)).key(&key).send().await.expect(200), expected);
    assert_eq!(app.get(CONVERSATIONS).key(&key).send().await.expect(200), json!([expected]));
}

#[apply(on_both!)]
async fn a_title_has_at_most_255_characters_and_may_be_missing(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let longest = "é".repeat(255);
    for (body, title) in [
        (json!({}), Value::Null),
        (json!({"title": null}), Value::Null),
        (json!({"title": longest}), json!(longest)),
    ] {
        let answer = app.post(CONVERSATIONS, body).key(&key).send().await.expect(201);
        assert_eq!((&answer["title"], &answer["participants"]), (&title, &json!([])));
    }
    let too_long = json!({"title": "é".repeat(256)});
    app.post(CONVERSATIONS, too_long.clone()).key(&key).send().await.invalid(&["body.title"]);
    app.put(&conversation_path(1), too_long).key(&key).send().await.invalid(&["body.title"]);
    let unknown = json!({"titel": "x"});
    app.post(CONVERSATIONS, unknown).key(&key).send().await.invalid(&["body.titel"]);
    assert_eq!(app.number("SELECT COUNT(*) FROM conversations").await, 3);
}

#[apply(on_both!)]
async fn unknown_participants_are_named_and_nothing_is_stored(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let body = json!({"participant_ids": [77, alice, 99]});
    let answer = app.post(CONVERSATIONS, body).key(&key).send().await;
    let msg = answer["detail"][0]["msg"].as_str().unwrap_or_default().to_owned();
    assert!(msg.contains("77") && msg.contains("99") && !msg.contains('1'), "{msg}");
    answer.invalid(&["body.participant_ids"]);
    let body = json!({"title": "x".repeat(256), "participant_ids": [0, alice, -1]});
    let answer = app.post(CONVERSATIONS, body).key(&key).send().await;
    answer.invalid(&["body.title", "body.participant_ids.0", "body.participant_ids.2"]);
    for ids in [json!(["1"]), json!([1.5]), json!([null])] {
        let answer =
            app.post(CONVERSATIONS, json!({"participant_ids": ids})).key(&key).send().await;
        answer.invalid(&["body.participant_ids.0"]);
    }
    for ids in [json!(1), json!("1"), Value::Null] {
        let answer =
            app.post(CONVERSATIONS, json!({"participant_ids": ids})).key(&key).send().await;
        answer.invalid(&["body.participant_ids"]);
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM conversations").await, 0);
    assert_eq!(app.number("SELECT COUNT(*) FROM participants").await, 0);
}

#[apply(on_both!)]
async fn a_participant_named_twice_is_added_once(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let body = json!({"participant_ids": [alice, alice]});
    let answer = app.post(CONVERSATIONS, body).key(&key).send().await.expect(201);
    assert_eq!(each(&answer["participants"], "id"), [alice]);
}

#[apply(on_both!)]
async fn a_list_embeds_the_newest_messages_oldest_first(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (quiet, long) = (app.conversation(&key, &[]).await, app.conversation(&key, &[]).await);
    for n in 1..=25 {
        app.post(&messages(long), user_message(n.to_string())).key(&key).send().await.expect(201);
    }
    app.post(&messages(quiet), user_message("hello")).key(&key).send().await.expect(201);
    for (query, shown) in [
        ("", 20),
        ("?message_limit=0", 0),
        ("?message_limit=1", 1),
        ("?message_limit=24", 24),
        ("?message_limit=25", 25),
        ("?message_limit=1000", 25),
    ] {
        let list = app.get(&format!("{CONVERSATIONS}{query}")).key(&key).send().await.expect(200);
        assert_eq!(each(&list, "id"), [quiet, long]);
        assert_eq!(each(&list, "message_count"), [1, 25]);
        let newest: Vec<String> = (26 - shown..=25).map(|n| n.to_string()).collect();
        assert_eq!(each(&list[1]["messages"], "content"), newest, "{query}");
        let of_quiet = usize::from(shown > 0);
        assert_eq!(list[0]["messages"].as_array().unwrap().len(), of_quiet);
        assert_eq!(each(&list, "messages_truncated"), [of_quiet < 1, shown < 25], "{query}");
        // A single conversation shows the same, with a higher default for `message_limit`.
        let one = app
            .get(&format!("{}{query}", conversation_path(long)))
            .key(&key)
            .send()
            .await
            .expect(200);
        match query {
            "" => assert_eq!(one["messages"].as_array().unwrap().len(), 25),
            _ => assert_eq!(one, list[1]),
        }
    }
    let second =
        app.get(&format!("{CONVERSATIONS}?skip=1&limit=1")).key(&key).send().await.expect(200);
    assert_eq!(each(&second, "id"), [long]);
    for path in
        [CONVERSATIONS.to_owned(), conversation_path(long), format!("{CONVERSATIONS}/user/1")]
    {
        for limit in ["-1", "1001", "x", ""] {
            let answer = app.get(&format!("{path}?message_limit={limit}")).key(&key).send().await;
            answer.invalid(&["query.message_limit"]);
        }
    }
}

#[apply(on_both!)]
async fn the_conversations_of_a_user_are_those_they_participate_in(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let first = app.conversation(&key, &[alice]).await;
    app.conversation(&key, &[bob]).await;
    let third = app.conversation(&key, &[alice, bob]).await;
    app.post(&messages(third), user_message("hello")).key(&key).send().await.expect(201);
    let of = async |user: i64, query: &str| {
        let path = format!("{CONVERSATIONS}/user/{user}{query}");
        app.get(&path).key(&key).send().await.expect(200)
    };
    let list = of(alice, "").await;
    assert_eq!(each(&list, "id"), [first, third]);
    assert_eq!(each(&list[1]["participants"], "id"), [alice, bob]);
    assert_eq!(each(&list[1]["messages"], "content"), ["hello"]);
    assert_eq!(list[1], app.get(&conversation_path(third)).key(&key).send().await.expect(200));
    assert_eq!(each(&of(alice, "?skip=1").await, "id"), [third]);
    assert_eq!(each(&of(alice, "?limit=1").await, "id"), [first]);
    assert_eq!(of(99, "").await, json!([]));
    let path = format!("{}/{alice}", participants(first));
    app.delete(&path).key(&key).send().await.expect(200);
    assert_eq!(each(&of(alice, "").await, "id"), [third]);
}

#[apply(on_both!)]
async fn a_conversation_is_read_changed_and_deleted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let (id, other) =
        (app.conversation(&key, &[alice]).await, app.conversation(&key, &[alice]).await);
    for id in [id, other] {
        app.post(&messages(id), user_message("hello")).key(&key).send().await.expect(201);
    }
    let mut fetched = app.get(&conversation_path(id)).key(&key).send().await.expect(200);
    for body in [json!({}), json!({"title": null})] {
        let answer = app.put(&conversation_path(id), body).key(&key).send().await.expect(200);
        assert_eq!(answer["title"], "a talk");
    }
    // A fetched conversation can be sent back; only the title is writable by the client.
    fetched["title"] = json!("another talk");
    let mut sent = fetched.clone();
    sent["id"] = json!(99);
    sent["message_count"] = json!(99);
    let answer = app.put(&conversation_path(id), sent).key(&key).send().await.expect(200);
    fetched["updated_at"] = answer["updated_at"].clone();
    assert_eq!(answer, fetched);

    let deleted = app.delete(&conversation_path(id)).key(&key).send().await;
    assert_eq!(deleted.text, "");
    deleted.expect(204);
    app.get(&conversation_path(id)).key(&key).send().await.refused(404, NOT_FOUND);
    let left = "SELECT (SELECT COUNT(*) FROM messages) + (SELECT COUNT(*) FROM participants)";
    assert_eq!(app.number(left).await, 2, "the rows of the other conversation stay");
    app.delete(&conversation_path(other)).key(&key).send().await.expect(204);
    assert_eq!(app.number(left).await, 0);
    assert_eq!(app.conversation(&key, &[]).await, other + 1, "an id is never used again");
}

#[apply(on_both!)]
async fn every_change_updates_updated_at(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let id = app.conversation(&key, &[]).await;
    let mut before = app.get(&conversation_path(id)).key(&key).send().await.expect(200);
    let participant_path = format!("{}/{alice}", participants(id));
    let new_participant = json!({"user_id": alice});
    for (call, moves) in [
        (app.put(&conversation_path(id), json!({"title": "x"})), true),
        (app.post(&participants(id), new_participant.clone()), true),
        (app.post(&participants(id), new_participant), false),
        (app.post(&messages(id), user_message("hello")), true),
        (app.post(&messages(id), user_message("")), false),
        (app.delete(&participant_path), true),
        (app.delete(&participant_path), false),
        (app.get(&messages(id)), false),
    ] {
        app.advance(TimeDelta::seconds(1));
        call.key(&key).send().await;
        let after = app.get(&conversation_path(id)).key(&key).send().await.expect(200);
        assert_eq!(after["created_at"], before["created_at"]);
        let moved = after["updated_at"].as_str() > before["updated_at"].as_str();
        assert_eq!(moved, moves, "{after}");
        before = after;
    }
}

#[apply(on_both!)]
async fn a_message_has_the_shape_of_the_contract(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let id = app.conversation(&key, &[alice]).await;
    let mut posted = vec![];
    for (role, user_id) in [("user", Some(alice)), ("assistant", None), ("system", None)] {
        let body = json!({"role": role, "content": " \"é\n😀", "user_id": user_id});
        let message = app.post(&messages(id), body).key(&key).send().await.expect(201);
        let user = json!({"id": alice, "username": "alice", "email": "alice@example.com"});
        let expected = json!({
            "id": posted.len() + 1, "conversation_id": id, "role": role, "content": " \"é\n😀",
            "user_id": user_id, "user": user_id.map(|_| user), "created_at": message["created_at"],
            "seq": posted.len() + 1, "metadata": null, "edited_at": null, "deleted_at": null,
            "version": 1,
        });
        assert_eq!(message, expected);
        posted.push(message);
    }
    let listed = app.get(&messages(id)).key(&key).send().await.expect(200);
    assert_eq!(listed, json!(posted));
    let shown = app.get(&conversation_path(id)).key(&key).send().await.expect(200);
    assert_eq!(shown["messages"], json!(posted));
}

#[apply(on_both!)]
async fn a_message_that_breaks_a_rule_is_not_stored(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    for role in ["", "User", "tool", "user "] {
        let answer = app.post(&messages(id), json!({"role": role, "content": "x"})).key(&key);
        answer.send().await.refused(400, "Role must be 'user', 'assistant', or 'system'");
    }
    for (body, places) in [
        (json!({"role": "user", "content": ""}), &["body.content"][..]),
        (json!({"role": "user", "content": "", "user_id": 0}), &["body.content", "body.user_id"]),
        (json!({"role": "user", "content": "x", "user_id": 0}), &["body.user_id"]),
        (json!({"role": "user", "content": "x", "user_id": -1}), &["body.user_id"]),
        (json!({"role": "user", "content": "x", "user_id": "1"}), &["body.user_id"]),
        (json!({"role": "user", "content": 1}), &["body.content"]),
        (json!({"role": 1, "content": "x"}), &["body.role"]),
        (json!({"role": "user"}), &["body.content"]),
        (json!({"content": "x"}), &["body.role"]),
        (json!({"role": "user", "content": "x", "id": 1}), &["body.id"]),
        (json!({"role": "user", "content": "a\0b"}), &["body.content"]),
    ] {
        app.post(&messages(id), body).key(&key).send().await.invalid(places);
    }
    let after = app.post(&messages(id), user_message("x")).key(&key).send().await.expect(201);
    assert_eq!(app.number("SELECT last_seq FROM conversations").await, 1, "{after}");
}

#[apply(on_both!)]
async fn content_is_measured_in_characters(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    for character in ["x", "😀"] {
        let longest = character.repeat(100_000);
        let answer =
            app.post(&messages(id), user_message(&*longest)).key(&key).send().await.expect(201);
        assert!(answer["content"] == longest.as_str());
        let too_long =
            app.post(&messages(id), user_message(longest + character)).key(&key).send().await;
        assert_eq!(too_long["detail"][0]["type"], "string_too_long");
        // The error does not echo the whole input.
        assert!(too_long.text.len() < 2000, "{} bytes", too_long.text.len());
        too_long.invalid(&["body.content"]);
    }
    let listed = app.get(&messages(id)).key(&key).send().await.expect(200);
    assert!(listed[1]["content"] == "😀".repeat(100_000).as_str());
}

#[apply(on_both!)]
async fn only_participants_can_post(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let id = app.conversation(&key, &[alice]).await;
    let by = |user: i64| json!({"role": "user", "content": "hello", "user_id": user});
    for non_participant in [bob, 99, i64::MAX] {
        let answer = app.post(&messages(id), by(non_participant)).key(&key).send().await;
        answer.refused(403, "User is not a participant in this conversation");
    }
    app.post(&messages(id), by(alice)).key(&key).send().await.expect(201);
    // A user who left can no longer post, but stays the author of earlier messages.
    let left = app.delete(&format!("{}/{alice}", participants(id))).key(&key).send().await;
    let left = left.expect(200);
    assert_eq!(left["participants"], json!([]));
    assert_eq!(left["messages"][0]["user"]["username"], "alice");
    let answer = app.post(&messages(id), by(alice)).key(&key).send().await;
    answer.refused(403, "User is not a participant in this conversation");
    assert_eq!(app.number("SELECT last_seq FROM conversations").await, 1, "no number is wasted");
}

#[apply(on_both!)]
async fn messages_are_paged_in_the_order_they_were_appended(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (id, other) = (app.conversation(&key, &[]).await, app.conversation(&key, &[]).await);
    for n in 1..=105 {
        app.post(&messages(id), user_message(n.to_string())).key(&key).send().await.expect(201);
        if n % 20 == 0 {
            app.post(&messages(other), user_message("between")).key(&key).send().await.expect(201);
        }
    }
    for (query, range) in [
        ("", 1..101),
        ("?skip=100", 101..106),
        ("?skip=3&limit=2", 4..6),
        ("?limit=1000", 1..106),
        ("?skip=105", 1..1),
        ("?skip=9223372036854775807", 1..1),
    ] {
        let path = format!("{}{query}", messages(id));
        let listed = app.get(&path).key(&key).send().await.expect(200);
        let numbers: Vec<String> = range.map(|n: i32| n.to_string()).collect();
        assert_eq!(each(&listed, "content"), numbers, "{query}");
    }
    for (query, place) in [("skip=-1", "skip"), ("limit=0", "limit"), ("limit=1001", "limit")] {
        let answer = app.get(&format!("{}?{query}", messages(id))).key(&key).send().await;
        answer.invalid(&[&format!("query.{place}")]);
    }
}

#[apply(on_both!)]
async fn a_participant_is_added_and_removed_once(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let id = app.conversation(&key, &[bob]).await;
    let (new_participant, participant_path) =
        (json!({"user_id": alice}), format!("{}/{alice}", participants(id)));
    let added =
        app.post(&participants(id), new_participant.clone()).key(&key).send().await.expect(201);
    assert_eq!(each(&added["participants"], "id"), [alice, bob]);
    let again =
        app.post(&participants(id), new_participant.clone()).key(&key).send().await.expect(201);
    assert_eq!(again, added);
    for (id, user) in [(id, 99), (99, alice), (99, 99)] {
        let answer = app.post(&participants(id), json!({"user_id": user})).key(&key).send().await;
        answer.refused(404, "Conversation or user not found");
    }
    for (body, place) in [
        (json!({"user_id": 0}), "user_id"),
        (json!({"user_id": null}), "user_id"),
        (json!({}), "user_id"),
        (json!({"user_id": alice, "role": "owner"}), "role"),
    ] {
        let answer = app.post(&participants(id), body).key(&key).send().await;
        answer.invalid(&[&format!("body.{place}")]);
    }
    let removed = app.delete(&participant_path).key(&key).send().await.expect(200);
    assert_eq!(each(&removed["participants"], "id"), [bob]);
    let again = app.delete(&participant_path).key(&key).send().await.expect(200);
    assert_eq!(again, removed);
    let non_participant = app.delete(&format!("{}/99", participants(id))).key(&key).send().await;
    assert_eq!(non_participant.expect(200), removed);
    app.get(&format!("/api/v1/users/{alice}")).key(&key).send().await.expect(200);
}

#[apply(on_both!)]
async fn unknown_conversations_are_not_found_by_any_route(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    for call in [
        app.get(&conversation_path(1)),
        app.put(&conversation_path(1), json!({"title": "x"})),
        app.delete(&conversation_path(1)),
        app.get(&messages(1)),
        app.post(&messages(1), user_message("hello")),
        app.post(&messages(1), json!({"role": "user", "content": "hello", "user_id": 1})),
        app.delete(&format!("{}/1", participants(1))),
    ] {
        call.key(&key).send().await.refused(404, NOT_FOUND);
    }
}

#[apply(on_both!)]
async fn concurrent_writers_lose_and_misplace_no_message(backend: Backend) {
    let app = Arc::new(TestApp::new(&backend).await);
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let (app, key) = (app.clone(), key.clone());
        writers.spawn(async move {
            for n in 0..25 {
                let body = user_message(format!("{writer}:{n}"));
                app.post(&messages(id), body).key(&key).send().await.expect(201);
            }
        });
    }
    writers.join_all().await;
    let stored: Vec<(i64, i64, String)> =
        app.rows("SELECT id, seq, content FROM messages ORDER BY seq").await;
    let numbers: Vec<i64> = stored.iter().map(|(_, seq, _)| *seq).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<i64>>());
    let listed = app.get(&format!("{}?limit=1000", messages(id))).key(&key).send().await;
    let listed = listed.expect(200);
    assert_eq!(each(&listed, "id"), stored.iter().map(|(id, ..)| *id).collect::<Vec<_>>());
    let shown = app.get(&conversation_path(id)).key(&key).send().await.expect(200);
    assert_eq!((&shown["messages"], &shown["message_count"]), (&listed, &json!(200)));
    // Each writer waited for its responses, so its own messages are in its own order.
    let mut of_writer = HashMap::<&str, Vec<&str>>::new();
    for message in listed.as_array().unwrap() {
        let (writer, n) = message["content"].as_str().unwrap().split_once(':').unwrap();
        of_writer.entry(writer).or_default().push(n);
    }
    let in_order: Vec<String> = (0..25).map(|n| n.to_string()).collect();
    assert_eq!(of_writer.len(), 8);
    assert!(of_writer.values().all(|numbers| *numbers == in_order), "{of_writer:?}");
}

/// More requests than database connections: none may hold one connection and wait for another.
#[apply(on_both!)]
async fn concurrent_changes_without_effect_do_not_deadlock(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let id = app.conversation(&key, &[alice]).await;
    let again = || app.post(&participants(id), json!({"user_id": alice})).key(&key);
    for answer in app.send_concurrently(64, again).await {
        answer.expect(201);
    }
    let non_participant = format!("{}/{bob}", participants(id));
    for answer in app.send_concurrently(64, || app.delete(&non_participant).key(&key)).await {
        answer.expect(200);
    }
}

#[apply(on_both!)]
async fn deleting_a_conversation_while_others_write_leaves_no_rows(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let id = app.conversation(&key, &[alice]).await;
    let body = json!({"role": "user", "content": "hello", "user_id": alice});
    let writing = app.send_concurrently(40, || app.post(&messages(id), body.clone()).key(&key));
    let joining = app
        .send_concurrently(8, || app.post(&participants(id), json!({"user_id": alice})).key(&key));
    let deleting = app.send_concurrently(4, || app.delete(&conversation_path(id)).key(&key));
    let (written, joined, deleted) = tokio::join!(writing, joining, deleting);
    for answer in &written {
        assert!([201, 404].contains(&answer.status), "{}: {}", answer.status, answer.text);
    }
    for answer in &joined {
        assert!([201, 404, 409].contains(&answer.status), "{}: {}", answer.status, answer.text);
    }
    let mut statuses: Vec<u16> = deleted.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 404, 404, 404], "{deleted:?}");
    let left = "SELECT (SELECT COUNT(*) FROM messages) + (SELECT COUNT(*) FROM participants)";
    assert_eq!(app.number(left).await, 0);
}

#[apply(on_both!)]
async fn an_answer_embeds_at_most_16_mib_of_messages(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    app.conversation(&key, &[alice]).await;
    let other = app.conversation(&key, &[alice]).await;
    backend.fill_conversation(60, &"😀".repeat(100_000)).await;
    app.post(&messages(other), user_message("hello")).key(&key).send().await.expect(201);
    for path in
        [CONVERSATIONS.to_owned(), format!("{CONVERSATIONS}/user/{alice}"), conversation_path(1)]
    {
        let answer = app.get(&format!("{path}?message_limit=1000")).key(&key).send().await;
        assert!(answer.text.len() < CAP + 4096, "{} bytes", answer.text.len());
        let all = answer.expect(200);
        let first = if all.is_array() { &all[0] } else { &all };
        assert_eq!(
            (&first["message_count"], &first["messages_truncated"]),
            (&json!(60), &json!(true))
        );
        // As many as fit, the newest ones.
        let ids = each(&first["messages"], "id");
        assert!((CAP / 400_000 - 2..=CAP / 400_000).contains(&ids.len()), "{}", ids.len());
        assert_eq!(ids, (61 - ids.len()..=60).collect::<Vec<_>>());
        if all.is_array() {
            let left_out = all[1]["messages"].as_array().unwrap().is_empty();
            assert_eq!(each(&all, "messages_truncated"), [true, left_out]);
        }
    }
    // The messages route returns those that were left out.
    let oldest = app.get(&format!("{}?limit=2", messages(1))).key(&key).send().await.expect(200);
    assert_eq!(each(&oldest, "id"), [1, 2]);
    // A response below the limit is complete.
    let few =
        app.get(&format!("{CONVERSATIONS}?message_limit=30")).key(&key).send().await.expect(200);
    assert_eq!(each(&few[0]["messages"], "id"), (31..=60).collect::<Vec<_>>());
    assert_eq!(each(&few[1]["messages"], "content"), ["hello"]);
}

#[apply(on_both!)]
async fn the_cap_on_messages_counts_the_bytes_of_the_answer(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.conversation(&key, &[]).await;
    // JSON encodes this character in six bytes.
    backend.fill_conversation(60, &"\u{1}".repeat(100_000)).await;
    let answer = app.get(&conversation_path(1)).key(&key).send().await;
    assert!(answer.text.len() < CAP + 4096, "{} bytes", answer.text.len());
    assert_eq!(answer.expect(200)["messages_truncated"], true);
}

/// In lists, texts are passed on as the database encoded them in JSON.
#[apply(on_both!)]
async fn texts_are_the_same_in_every_response(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let name = "\"日\\本";
    let body = json!({"email": "alice@example.com", "username": name, "password": "correct horse battery"});
    let user = app.post("/api/v1/users", body).send().await.expect(201)["id"].as_i64().unwrap();
    let id = app.conversation(&key, &[user]).await;
    let controls: String =
        (1..=0x20).chain([0x7f, 0x80, 0x9f]).filter_map(char::from_u32).collect();
    let texts = [
        "null",
        "\"",
        "\\",
        "\\\"",
        "\\u0041",
        "[1, 2]",
        "{\"a\": 1}",
        " x ",
        "</script>",
        "'; --",
        "\u{2028}\u{2029}\u{feff}\u{fffd}\u{ffff}",
        "e\u{301} 😀 \u{10ffff}",
        &controls,
    ];
    for text in texts {
        let message = json!({"role": "user", "content": text, "user_id": user,
            "metadata": {text: text}});
        app.post(&messages(id), message).key(&key).send().await.expect(201);
    }
    let read = async |path: &str| app.get(path).key(&key).send().await.expect(200);
    let (one, page, list) =
        (read(&conversation_path(id)).await, read(CONVERSATIONS).await, read(&messages(id)).await);
    for shown in [&one["messages"], &page[0]["messages"], &list] {
        assert_eq!(each(shown, "content"), texts);
        for (message, text) in shown.as_array().unwrap().iter().zip(texts) {
            assert_eq!(message["metadata"], json!({text: text}));
            assert_eq!(message["user"]["username"], name);
        }
    }
    assert_eq!((&one["messages"], &one), (&list, &page[0]));
}

/// Counts the statements that sqlx logs.
struct Statements(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The statements are the same on both databases, but SQLite runs them on dedicated threads, where
/// a test cannot separate its statements from those of other tests.
#[apply(on_postgres!)]
async fn a_list_takes_as_many_statements_for_many_conversations_as_for_one(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let mut counts = vec![];
    for _ in 0..2 {
        for _ in 0..10 {
            let id = app.conversation(&key, &[alice, bob]).await;
            app.post(&messages(id), user_message("hello")).key(&key).send().await.expect(201);
        }
        for limit in [1, 100] {
            // A connection opened meanwhile logs statements, too; and while another test installs
            // its subscriber, events may be lost. The median of five runs has neither error.
            let mut counted = vec![];
            for _ in 0..5 {
                let counter = Arc::<AtomicUsize>::default();
                let collector = tracing_subscriber::registry().with(Statements(counter.clone()));
                let guard = tracing::subscriber::set_default(collector);
                let page = Page { skip: 0, limit };
                service::list(&app.state.db, Visibility::All, page.into(), 20).await.unwrap();
                service::list_of_user(&app.state.db, alice, Visibility::All, page.into(), 20)
                    .await
                    .unwrap();
                drop(guard);
                counted.push(counter.load(Ordering::Relaxed));
            }
            counted.sort_unstable();
            counts.push(counted[2]);
        }
    }
    assert!(counts[0] >= 2, "no statement was counted: {counts:?}");
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}
