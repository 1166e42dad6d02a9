//! What somebody logged in may see and do: their own conversations, as themselves, and nothing else.

mod lost;

use crate::support::{Backend, Call, TestApp, tests};
use serde_json::{Value, json};

// The list below names each of them, and an unlisted one is dead code.
#[expect(clippy::wildcard_imports, reason = "a second list of the tests would tell nothing")]
use lost::*;

tests!(on_both: [
    a_user_sees_the_conversations_they_take_part_in_and_no_others,
    a_conversation_of_others_is_not_found_by_any_route,
    a_message_of_others_is_not_found_under_a_conversation_of_ones_own,
    the_list_of_another_user_is_not_found,
    a_user_takes_part_in_what_they_begin,
    a_user_names_others_by_their_usernames_only,
    a_user_speaks_as_themselves_only,
    a_user_adds_others_by_username,
    a_user_leaves_and_sends_nobody_away,
    a_user_renames_and_deletes_no_conversation,
    of_others_a_user_sees_the_name_only,
    a_key_sees_everything_as_before,
    one_credential_is_sent_at_a_time,
    a_session_that_ended_opens_nothing,
    a_user_who_was_switched_off_gets_nowhere,
    a_membership_that_was_taken_away_is_over_at_the_next_request,
    nothing_is_said_by_who_has_left,
    who_was_sent_away_cannot_let_themselves_in_again,
    an_append_that_waited_for_the_end_of_a_membership_is_not_found,
]);

const TALKS: &str = "/api/v1/conversations";
const NOT_FOUND: &str = "Conversation not found";
const NEITHER: &str = "Conversation or user not found";

/// A server with an admin key, Alice and Bob, each logged in, and a conversation of each of them.
struct Two {
    app: TestApp,
    key: String,
    alice: i64,
    bob: i64,
    as_alice: String,
    as_bob: String,
    of_alice: i64,
    of_bob: i64,
}

impl Two {
    async fn new(backend: &Backend) -> Self {
        let app = TestApp::new(backend).await;
        let key = app.admin().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let (as_alice, as_bob) = (app.session_of(alice).await, app.session_of(bob).await);
        let of_alice = app.conversation(&key, &[alice]).await;
        let of_bob = app.conversation(&key, &[bob]).await;
        Self { app, key, alice, bob, as_alice, as_bob, of_alice, of_bob }
    }

    /// Alice's request.
    fn get(&self, path: &str) -> Call {
        self.app.get(path).session(&self.as_alice)
    }

    /// Likewise.
    fn post(&self, path: &str, body: Value) -> Call {
        self.app.post(path, body).session(&self.as_alice)
    }

    /// Likewise.
    fn delete(&self, path: &str) -> Call {
        self.app.delete(path).session(&self.as_alice)
    }

    /// Something that user `by` says in conversation `id`, by way of the key: its id.
    async fn said(&self, id: i64, by: i64) -> i64 {
        let body = json!({"role": "user", "content": "secret", "user_id": by});
        let answer = self.app.post(&messages(id), body).key(&self.key).send().await.expect(201);
        answer["id"].as_i64().unwrap()
    }

    /// Bob takes part in Alice's conversation.
    async fn let_bob_in(&self) {
        let path = participants(self.of_alice);
        let call = self.app.post(&path, json!({"user_id": self.bob})).key(&self.key);
        call.send().await.expect(201);
    }
}

fn talk(id: i64) -> String {
    format!("{TALKS}/{id}")
}

fn messages(id: i64) -> String {
    format!("{TALKS}/{id}/messages")
}

fn participants(id: i64) -> String {
    format!("{TALKS}/{id}/participants")
}

fn says() -> Value {
    json!({"role": "user", "content": "hello"})
}

fn ids(list: &Value) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|entry| entry["id"].as_i64().unwrap()).collect()
}

async fn a_user_sees_the_conversations_they_take_part_in_and_no_others(backend: Backend) {
    let two = Two::new(&backend).await;
    let both = two.app.conversation(&two.key, &[two.alice, two.bob]).await;
    two.app.conversation(&two.key, &[]).await;
    let own = [two.of_alice, both];
    for (query, expected) in [
        ("", vec![own[0], own[1]]),
        ("?order=desc", vec![own[1], own[0]]),
        ("?order=recent", vec![own[1], own[0]]),
        ("?skip=1", vec![own[1]]),
        ("?limit=1", vec![own[0]]),
        ("?order=recent&skip=1&message_limit=0", vec![own[0]]),
        ("?skip=2", vec![]),
    ] {
        for path in [TALKS.to_owned(), format!("{TALKS}/user/{}", two.alice)] {
            let list = two.get(&format!("{path}{query}")).send().await.expect(200);
            assert_eq!(ids(&list), expected, "{path}{query}");
        }
    }
    for id in own {
        assert_eq!(two.get(&talk(id)).send().await.expect(200)["id"], id);
        two.get(&messages(id)).send().await.expect(200);
    }
}

/// Each call that names a conversation and, where there is one, a message of it.
fn calls(two: &Two, id: i64, message: i64) -> Vec<(Call, &'static str)> {
    let message = format!("{}/{message}", messages(id));
    let who = json!({"username": "alice"});
    let batch = json!({"messages": [says()]});
    let call = |method: &str, path: &str, body: Value| {
        let call = two.app.call(method.parse().unwrap(), path).session(&two.as_alice);
        if body.is_null() { call } else { call.json(body) }
    };
    vec![
        (call("GET", &talk(id), Value::Null), NOT_FOUND),
        (call("HEAD", &talk(id), Value::Null), ""),
        (call("GET", &format!("{}?message_limit=0", talk(id)), Value::Null), NOT_FOUND),
        (call("GET", &messages(id), Value::Null), NOT_FOUND),
        (call("GET", &format!("{}?order=desc&limit=1", messages(id)), Value::Null), NOT_FOUND),
        (call("GET", &format!("{}?skip=1000", messages(id)), Value::Null), NOT_FOUND),
        (call("POST", &messages(id), says()), NOT_FOUND),
        (call("POST", &messages(id), says()).header("Idempotency-Key", "a"), NOT_FOUND),
        (call("POST", &format!("{}/batch", messages(id)), batch), NOT_FOUND),
        (call("GET", &message, Value::Null), NOT_FOUND),
        (call("PATCH", &message, json!({"content": "mine"})), NOT_FOUND),
        (call("PATCH", &message, json!({})), NOT_FOUND),
        (call("PATCH", &message, json!({})).header("If-Match", "\"7\""), NOT_FOUND),
        (call("DELETE", &message, Value::Null), NOT_FOUND),
        (call("DELETE", &message, Value::Null).header("If-Match", "\"7\""), NOT_FOUND),
        (call("POST", &participants(id), who), NEITHER),
        (call("POST", &participants(id), json!({"username": "bob"})), NEITHER),
        (call("POST", &participants(id), json!({"username": "nobody"})), NEITHER),
        (call("POST", &participants(id), json!({"user_id": two.alice})), NEITHER),
        (call("DELETE", &format!("{}/{}", participants(id), two.alice), Value::Null), NOT_FOUND),
        (call("DELETE", &format!("{}/{}", participants(id), two.bob), Value::Null), NOT_FOUND),
    ]
}

async fn a_conversation_of_others_is_not_found_by_any_route(backend: Backend) {
    let two = Two::new(&backend).await;
    // Even one with something that Alice herself once said.
    let message = two.said(two.of_bob, two.bob).await;
    let own = two.said(two.of_alice, two.alice).await;
    backend
        .execute(format!(
            "INSERT INTO messages (conversation_id, seq, role, content, user_id, created_at) \
             VALUES ({}, 2, 'user', 'once', {}, '2026-01-01T00:00:00+00:00'); \
             UPDATE conversations SET last_seq = 2 WHERE id = {}",
            two.of_bob, two.alice, two.of_bob
        ))
        .await;
    let before = two.app.get(&talk(two.of_bob)).key(&two.key).send().await.expect(200);
    let hers = before["messages"][1]["id"].as_i64().unwrap();
    for message in [message, hers, own, 999_999] {
        // One that nobody has answers the same, word for word.
        for id in [two.of_bob, 999_999] {
            for (call, detail) in calls(&two, id, message) {
                let answer = call.send().await;
                assert_eq!(answer.status, 404, "{}", answer.text);
                assert_eq!(answer["detail"].as_str().unwrap_or_default(), detail);
            }
        }
    }
    let after = two.app.get(&talk(two.of_bob)).key(&two.key).send().await.expect(200);
    assert_eq!(after, before);
    assert_eq!(two.app.number("SELECT COUNT(*) FROM idempotency_keys").await, 0);
}

async fn a_message_of_others_is_not_found_under_a_conversation_of_ones_own(backend: Backend) {
    let two = Two::new(&backend).await;
    two.said(two.of_alice, two.alice).await;
    let foreign = two.said(two.of_bob, two.bob).await;
    let path = format!("{}/{foreign}", messages(two.of_alice));
    let edit = two.app.patch(&path, json!({"content": "mine"})).session(&two.as_alice);
    for call in [two.get(&path), edit, two.delete(&path)] {
        call.send().await.refused(404, "Message not found");
    }
    let kept = two.app.get(&messages(two.of_bob)).key(&two.key).send().await.expect(200);
    assert_eq!((&kept[0]["content"], &kept[0]["version"]), (&json!("secret"), &json!(1)));
}

async fn the_list_of_another_user_is_not_found(backend: Backend) {
    let two = Two::new(&backend).await;
    for id in [two.bob, 999_999] {
        for query in ["", "?order=recent", "?limit=1&message_limit=0", "?skip=10"] {
            let answer = two.get(&format!("{TALKS}/user/{id}{query}")).send().await;
            answer.refused(404, "User not found");
        }
    }
}

async fn a_user_takes_part_in_what_they_begin(backend: Backend) {
    let two = Two::new(&backend).await;
    for body in [json!({}), json!({"participant_ids": [two.alice]}), json!({"title": "t"})] {
        let begun = two.post(TALKS, body).send().await.expect(201);
        let own = json!([{"id": two.alice, "username": "alice", "email": "alice@example.com"}]);
        assert_eq!(begun["participants"], own);
        let id = begun["id"].as_i64().unwrap();
        assert_eq!(two.get(&talk(id)).send().await.expect(200), begun);
    }
    // Naming oneself is no matter.
    let body = json!({"participant_usernames": ["ALICE", "Bob", "bob"]});
    let begun = two.post(TALKS, body).send().await.expect(201);
    assert_eq!(ids(&begun["participants"]), [two.alice, two.bob]);
    two.app.get(&talk(begun["id"].as_i64().unwrap())).session(&two.as_bob).send().await.expect(200);
    // A key names them so, too, and takes part in nothing.
    let body = json!({"participant_usernames": ["bob"], "participant_ids": [two.bob, two.alice]});
    let begun = two.app.post(TALKS, body).key(&two.key).send().await.expect(201);
    assert_eq!(ids(&begun["participants"]), [two.alice, two.bob]);
}

async fn a_user_names_others_by_their_usernames_only(backend: Backend) {
    let two = Two::new(&backend).await;
    let before = two.app.number("SELECT COUNT(*) FROM conversations").await;
    for ids in [vec![two.bob], vec![two.alice, two.bob], vec![999_999]] {
        let answer = two.post(TALKS, json!({"participant_ids": ids})).send().await;
        answer.refused(403, "Name the users who take part by their usernames");
    }
    for call in [
        two.post(TALKS, json!({"participant_usernames": ["bob", "carol", "bob@example.com"]})),
        two.app.post(TALKS, json!({"participant_usernames": ["carol", "dora"]})).key(&two.key),
    ] {
        let answer = call.send().await;
        assert!(answer.text.contains("carol") && !answer.text.contains(" bob,"), "{}", answer.text);
        answer.invalid(&["body.participant_usernames"]);
    }
    let long = json!({"participant_usernames": ["bob", "", "x".repeat(101), "y".repeat(100)]});
    let answer = two.post(TALKS, long).send().await;
    answer.invalid(&["body.participant_usernames.1", "body.participant_usernames.2"]);
    let many: Vec<String> = (0..1001).map(|n| format!("user {n}")).collect();
    let answer = two.post(TALKS, json!({"participant_usernames": many})).send().await;
    answer.invalid(&["body.participant_usernames"]);
    assert_eq!(two.app.number("SELECT COUNT(*) FROM conversations").await, before);
}

async fn a_user_speaks_as_themselves_only(backend: Backend) {
    let two = Two::new(&backend).await;
    two.let_bob_in().await;
    let path = messages(two.of_alice);
    for (body, detail) in [
        (json!({"role": "assistant", "content": "x"}), "A logged-in user may only post as 'user'"),
        (
            json!({"role": "system", "content": "x", "user_id": two.alice}),
            "A logged-in user may only post as 'user'",
        ),
        (
            json!({"role": "user", "content": "x", "user_id": two.bob}),
            "A logged-in user may only post as themselves",
        ),
        (
            json!({"role": "user", "content": "x", "user_id": 999_999}),
            "A logged-in user may only post as themselves",
        ),
    ] {
        two.post(&path, body.clone()).send().await.refused(403, detail);
        let batch = json!({"messages": [says(), body]});
        two.post(&format!("{path}/batch"), batch).send().await.refused(403, detail);
    }
    assert_eq!(two.app.number("SELECT COUNT(*) FROM messages").await, 0);
    for user_id in [Value::Null, json!(two.alice)] {
        let body = json!({"role": "user", "content": "x", "user_id": user_id});
        let said = two.post(&path, body).send().await.expect(201);
        assert_eq!(
            (&said["user_id"], &said["user"]["username"]),
            (&two.alice.into(), &json!("alice"))
        );
    }
}

async fn a_user_adds_others_by_username(backend: Backend) {
    let two = Two::new(&backend).await;
    let path = participants(two.of_alice);
    for id in [two.bob, 999_999] {
        let answer = two.post(&path, json!({"user_id": id})).send().await;
        answer.refused(403, "Name the users who take part by their usernames");
    }
    for name in ["carol", "bob@example.com", " bob"] {
        two.post(&path, json!({"username": name})).send().await.refused(404, NEITHER);
    }
    for (body, place) in [
        (json!({"username": ""}), "username"),
        (json!({"username": "x".repeat(101)}), "username"),
        (json!({"username": "bob", "user_id": two.bob}), "username"),
        (json!({}), "user_id"),
    ] {
        two.post(&path, body).send().await.invalid(&[&format!("body.{place}")]);
    }
    // Oneself is there already.
    let own = two.post(&path, json!({"user_id": two.alice})).send().await.expect(201);
    assert_eq!(ids(&own["participants"]), [two.alice]);
    for name in ["bob", "BOB"] {
        let added = two.post(&path, json!({"username": name})).send().await.expect(201);
        assert_eq!(ids(&added["participants"]), [two.alice, two.bob]);
    }
    two.app.get(&talk(two.of_alice)).session(&two.as_bob).send().await.expect(200);
    let by_key = two.app.post(&participants(two.of_bob), json!({"username": "Alice"}));
    let added = by_key.key(&two.key).send().await.expect(201);
    assert_eq!(ids(&added["participants"]), [two.alice, two.bob]);
}

async fn a_user_leaves_and_sends_nobody_away(backend: Backend) {
    let two = Two::new(&backend).await;
    two.let_bob_in().await;
    let message = two.said(two.of_alice, two.alice).await;
    for id in [two.bob, 999_999] {
        let answer = two.delete(&format!("{}/{id}", participants(two.of_alice))).send().await;
        answer.refused(403, "A logged-in user may only leave, not remove others");
    }
    let left = two.delete(&format!("{}/{}", participants(two.of_alice), two.alice)).send().await;
    assert_eq!(left.text, "");
    left.expect(204);
    for (call, detail) in calls(&two, two.of_alice, message) {
        let answer = call.send().await;
        assert_eq!(answer.status, 404, "{}", answer.text);
        assert_eq!(answer["detail"].as_str().unwrap_or_default(), detail);
    }
    assert_eq!(two.get(TALKS).send().await.expect(200), json!([]));
    // What she said stays, as hers.
    let kept = two.app.get(&talk(two.of_alice)).session(&two.as_bob).send().await.expect(200);
    assert_eq!(ids(&kept["participants"]), [two.bob]);
    let said = json!({"id": two.alice, "username": "alice"});
    assert_eq!(
        (&kept["messages"][0]["content"], &kept["messages"][0]["user"]),
        (&json!("secret"), &said)
    );
}

async fn a_user_renames_and_deletes_no_conversation(backend: Backend) {
    let two = Two::new(&backend).await;
    let sentence = "Write scope required to change conversations";
    for id in [two.of_alice, two.of_bob, 999_999] {
        let rename = two.app.put(&talk(id), json!({"title": "mine"})).session(&two.as_alice);
        rename.send().await.refused(403, sentence);
        two.delete(&talk(id)).send().await.refused(403, sentence);
    }
    let kept = two.get(&talk(two.of_alice)).send().await.expect(200);
    assert_eq!(kept["title"], "a talk");
}

async fn of_others_a_user_sees_the_name_only(backend: Backend) {
    let two = Two::new(&backend).await;
    let id = two.of_alice;
    let added = two.post(&participants(id), json!({"username": "bob"})).send().await;
    let said = two.app.post(&messages(id), says()).session(&two.as_bob).send().await.expect(201);
    assert_eq!(said["user"]["email"], "bob@example.com");
    let message = format!("{}/{}", messages(id), said["id"]);
    let batch = json!({"messages": [says(), says()]});
    let own = [
        two.post(TALKS, json!({"participant_usernames": ["bob"]})).send().await,
        two.post(&messages(id), says()).send().await,
        two.post(&messages(id), says()).header("Idempotency-Key", "a").send().await,
        two.post(&messages(id), says()).header("Idempotency-Key", "a").send().await,
        two.post(&format!("{}/batch", messages(id)), batch).send().await,
        two.get(TALKS).send().await,
        two.get(&format!("{TALKS}?order=recent")).send().await,
        two.get(&format!("{TALKS}/user/{}", two.alice)).send().await,
        two.get(&talk(id)).send().await,
        two.get(&messages(id)).send().await,
        added,
    ];
    for answer in own {
        assert!([200, 201].contains(&answer.status), "{}", answer.text);
        assert!(!answer.text.contains("bob@"), "{}", answer.text);
        assert!(answer.text.contains("alice@example.com"), "{}", answer.text);
    }
    let answer = two.get(&message).send().await;
    assert_eq!(answer["user"], json!({"id": two.bob, "username": "bob"}));
    // Nor in the answers to changes of one's own.
    let own = two.post(&messages(id), says()).send().await.expect(201);
    let edit = two.app.patch(&format!("{}/{}", messages(id), own["id"]), json!({"content": "b"}));
    let edited = edit.session(&two.as_alice).send().await.expect(200);
    assert_eq!(edited["user"]["email"], "alice@example.com");
}
