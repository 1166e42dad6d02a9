//! Row-level access of signed-in users: they see and change only the conversations in which they
//! participate, and act only as themselves.

mod lost;

use crate::support::{Backend, Call, TestApp};
use serde_json::{Value, json};

const CONVERSATIONS: &str = "/api/v1/conversations";
const NOT_FOUND: &str = "Conversation not found";
const NEITHER: &str = "Conversation or user not found";

/// A server with an admin key, the signed-in users Alice and Bob, and a conversation of each.
struct Fixture {
    app: TestApp,
    key: String,
    alice: i64,
    bob: i64,
    as_alice: String,
    as_bob: String,
    of_alice: i64,
    of_bob: i64,
}

impl Fixture {
    async fn new(backend: &Backend) -> Self {
        let app = TestApp::new(backend).await;
        let key = app.admin().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let (as_alice, as_bob) = (app.session_of(alice).await, app.session_of(bob).await);
        let of_alice = app.conversation(&key, &[alice]).await;
        let of_bob = app.conversation(&key, &[bob]).await;
        Self { app, key, alice, bob, as_alice, as_bob, of_alice, of_bob }
    }

    /// A GET request as Alice.
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

    /// Posts a message as user `by` in conversation `id` with the key; returns its id.
    async fn post_message(&self, id: i64, by: i64) -> i64 {
        let body = json!({"role": "user", "content": "secret", "user_id": by});
        let answer = self.app.post(&messages(id), body).key(&self.key).send().await.expect(201);
        answer["id"].as_i64().unwrap()
    }

    /// Adds Bob to Alice's conversation.
    async fn add_bob(&self) {
        let path = participants(self.of_alice);
        let call = self.app.post(&path, json!({"user_id": self.bob})).key(&self.key);
        call.send().await.expect(201);
    }
}

fn conversation_path(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}")
}

fn messages(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}/messages")
}

fn participants(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}/participants")
}

fn user_message() -> Value {
    json!({"role": "user", "content": "hello"})
}

fn ids(list: &Value) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|entry| entry["id"].as_i64().unwrap()).collect()
}

#[apply(on_both!)]
async fn users_see_only_the_conversations_they_participate_in(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let both = fixture.app.conversation(&fixture.key, &[fixture.alice, fixture.bob]).await;
    fixture.app.conversation(&fixture.key, &[]).await;
    let own = [fixture.of_alice, both];
    for (query, expected) in [
        ("", vec![own[0], own[1]]),
        ("?order=desc", vec![own[1], own[0]]),
        ("?order=recent", vec![own[1], own[0]]),
        ("?skip=1", vec![own[1]]),
        ("?limit=1", vec![own[0]]),
        ("?order=recent&skip=1&message_limit=0", vec![own[0]]),
        ("?skip=2", vec![]),
    ] {
        for path in [CONVERSATIONS.to_owned(), format!("{CONVERSATIONS}/user/{}", fixture.alice)] {
            let list = fixture.get(&format!("{path}{query}")).send().await.expect(200);
            assert_eq!(ids(&list), expected, "{path}{query}");
        }
    }
    for id in own {
        assert_eq!(fixture.get(&conversation_path(id)).send().await.expect(200)["id"], id);
        fixture.get(&messages(id)).send().await.expect(200);
    }
}

/// Every request that names a conversation and, where it applies, a message of it.
fn calls(fixture: &Fixture, id: i64, message: i64) -> Vec<(Call, &'static str)> {
    let message = format!("{}/{message}", messages(id));
    let body = json!({"username": "alice"});
    let batch = json!({"messages": [user_message()]});
    let call = |method: &str, path: &str, body: Value| {
        let call = fixture.app.call(method.parse().unwrap(), path).session(&fixture.as_alice);
        if body.is_null() { call } else { call.json(body) }
    };
    vec![
        (call("GET", &conversation_path(id), Value::Null), NOT_FOUND),
        (call("HEAD", &conversation_path(id), Value::Null), ""),
        (
            call("GET", &format!("{}?message_limit=0", conversation_path(id)), Value::Null),
            NOT_FOUND,
        ),
        (call("GET", &messages(id), Value::Null), NOT_FOUND),
        (call("GET", &format!("{}?order=desc&limit=1", messages(id)), Value::Null), NOT_FOUND),
        (call("GET", &format!("{}?skip=1000", messages(id)), Value::Null), NOT_FOUND),
        (call("POST", &messages(id), user_message()), NOT_FOUND),
        (call("POST", &messages(id), user_message()).header("Idempotency-Key", "a"), NOT_FOUND),
        (call("POST", &format!("{}/batch", messages(id)), batch), NOT_FOUND),
        (call("GET", &message, Value::Null), NOT_FOUND),
        (call("PATCH", &message, json!({"content": "mine"})), NOT_FOUND),
        (call("PATCH", &message, json!({})), NOT_FOUND),
        (call("PATCH", &message, json!({})).header("If-Match", "\"7\""), NOT_FOUND),
        (call("DELETE", &message, Value::Null), NOT_FOUND),
        (call("DELETE", &message, Value::Null).header("If-Match", "\"7\""), NOT_FOUND),
        (call("POST", &participants(id), body), NEITHER),
        (call("POST", &participants(id), json!({"username": "bob"})), NEITHER),
        (call("POST", &participants(id), json!({"username": "nobody"})), NEITHER),
        (call("POST", &participants(id), json!({"user_id": fixture.alice})), NEITHER),
        (
            call("DELETE", &format!("{}/{}", participants(id), fixture.alice), Value::Null),
            NOT_FOUND,
        ),
        (call("DELETE", &format!("{}/{}", participants(id), fixture.bob), Value::Null), NOT_FOUND),
    ]
}

#[apply(on_both!)]
async fn a_conversation_of_others_is_not_found_by_any_route(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    // This includes a conversation that holds a message of Alice.
    let message = fixture.post_message(fixture.of_bob, fixture.bob).await;
    let own = fixture.post_message(fixture.of_alice, fixture.alice).await;
    backend
        .execute(format!(
            "INSERT INTO messages (conversation_id, seq, role, content, user_id, created_at) \
             VALUES ({}, 2, 'user', 'once', {}, '2026-01-01T00:00:00+00:00'); \
             UPDATE conversations SET last_seq = 2 WHERE id = {}",
            fixture.of_bob, fixture.alice, fixture.of_bob
        ))
        .await;
    let before = fixture
        .app
        .get(&conversation_path(fixture.of_bob))
        .key(&fixture.key)
        .send()
        .await
        .expect(200);
    let hers = before["messages"][1]["id"].as_i64().unwrap();
    for message in [message, hers, own, 999_999] {
        // A conversation that does not exist gets the same response, byte for byte.
        for id in [fixture.of_bob, 999_999] {
            for (call, detail) in calls(&fixture, id, message) {
                let answer = call.send().await;
                assert_eq!(answer.status, 404, "{}", answer.text);
                assert_eq!(answer["detail"].as_str().unwrap_or_default(), detail);
            }
        }
    }
    let after = fixture
        .app
        .get(&conversation_path(fixture.of_bob))
        .key(&fixture.key)
        .send()
        .await
        .expect(200);
    assert_eq!(after, before);
    assert_eq!(fixture.app.number("SELECT COUNT(*) FROM idempotency_keys").await, 0);
}

#[apply(on_both!)]
async fn a_message_of_another_conversation_is_not_found_under_an_own_one(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    fixture.post_message(fixture.of_alice, fixture.alice).await;
    let foreign = fixture.post_message(fixture.of_bob, fixture.bob).await;
    let path = format!("{}/{foreign}", messages(fixture.of_alice));
    let edit = fixture.app.patch(&path, json!({"content": "mine"})).session(&fixture.as_alice);
    for call in [fixture.get(&path), edit, fixture.delete(&path)] {
        call.send().await.refused(404, "Message not found");
    }
    let kept =
        fixture.app.get(&messages(fixture.of_bob)).key(&fixture.key).send().await.expect(200);
    assert_eq!((&kept[0]["content"], &kept[0]["version"]), (&json!("secret"), &json!(1)));
}

#[apply(on_both!)]
async fn the_list_of_another_user_is_not_found(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for id in [fixture.bob, 999_999] {
        for query in ["", "?order=recent", "?limit=1&message_limit=0", "?skip=10"] {
            let answer = fixture.get(&format!("{CONVERSATIONS}/user/{id}{query}")).send().await;
            answer.refused(404, "User not found");
        }
    }
}

#[apply(on_both!)]
async fn a_user_participates_in_conversations_they_create(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for body in [json!({}), json!({"participant_ids": [fixture.alice]}), json!({"title": "t"})] {
        let created = fixture.post(CONVERSATIONS, body).send().await.expect(201);
        let own = json!([{"id": fixture.alice, "username": "alice", "email": "alice@example.com"}]);
        assert_eq!(created["participants"], own);
        let id = created["id"].as_i64().unwrap();
        assert_eq!(fixture.get(&conversation_path(id)).send().await.expect(200), created);
    }
    // Users may name themselves.
    let body = json!({"participant_usernames": ["ALICE", "Bob", "bob"]});
    let created = fixture.post(CONVERSATIONS, body).send().await.expect(201);
    assert_eq!(ids(&created["participants"]), [fixture.alice, fixture.bob]);
    fixture
        .app
        .get(&conversation_path(created["id"].as_i64().unwrap()))
        .session(&fixture.as_bob)
        .send()
        .await
        .expect(200);
    // A key can use usernames, too, and does not become a participant.
    let body =
        json!({"participant_usernames": ["bob"], "participant_ids": [fixture.bob, fixture.alice]});
    let created = fixture.app.post(CONVERSATIONS, body).key(&fixture.key).send().await.expect(201);
    assert_eq!(ids(&created["participants"]), [fixture.alice, fixture.bob]);
}

#[apply(on_both!)]
async fn a_user_names_others_by_their_usernames_only(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let before = fixture.app.number("SELECT COUNT(*) FROM conversations").await;
    for ids in [vec![fixture.bob], vec![fixture.alice, fixture.bob], vec![999_999]] {
        let answer = fixture.post(CONVERSATIONS, json!({"participant_ids": ids})).send().await;
        answer.refused(403, "Signed-in users must name participants by username");
    }
    for call in [
        fixture.post(
            CONVERSATIONS,
            json!({"participant_usernames": ["bob", "carol", "bob@example.com"]}),
        ),
        fixture
            .app
            .post(CONVERSATIONS, json!({"participant_usernames": ["carol", "dora"]}))
            .key(&fixture.key),
    ] {
        let answer = call.send().await;
        assert!(answer.text.contains("carol") && !answer.text.contains(" bob,"), "{}", answer.text);
        answer.invalid(&["body.participant_usernames"]);
    }
    let long = json!({"participant_usernames": ["bob", "", "x".repeat(101), "y".repeat(100)]});
    let answer = fixture.post(CONVERSATIONS, long).send().await;
    answer.invalid(&["body.participant_usernames.1", "body.participant_usernames.2"]);
    let many: Vec<String> = (0..1001).map(|n| format!("user {n}")).collect();
    let answer = fixture.post(CONVERSATIONS, json!({"participant_usernames": many})).send().await;
    answer.invalid(&["body.participant_usernames"]);
    assert_eq!(fixture.app.number("SELECT COUNT(*) FROM conversations").await, before);
}

#[apply(on_both!)]
async fn a_user_can_post_only_as_themselves(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    fixture.add_bob().await;
    let path = messages(fixture.of_alice);
    for (body, detail) in [
        (json!({"role": "assistant", "content": "x"}), "A signed-in user can only post as 'user'"),
        (
            json!({"role": "system", "content": "x", "user_id": fixture.alice}),
            "A signed-in user can only post as 'user'",
        ),
        (
            json!({"role": "user", "content": "x", "user_id": fixture.bob}),
            "A signed-in user can only post as themselves",
        ),
        (
            json!({"role": "user", "content": "x", "user_id": 999_999}),
            "A signed-in user can only post as themselves",
        ),
    ] {
        fixture.post(&path, body.clone()).send().await.refused(403, detail);
        let batch = json!({"messages": [user_message(), body]});
        fixture.post(&format!("{path}/batch"), batch).send().await.refused(403, detail);
    }
    assert_eq!(fixture.app.number("SELECT COUNT(*) FROM messages").await, 0);
    for user_id in [Value::Null, json!(fixture.alice)] {
        let body = json!({"role": "user", "content": "x", "user_id": user_id});
        let posted = fixture.post(&path, body).send().await.expect(201);
        assert_eq!(
            (&posted["user_id"], &posted["user"]["username"]),
            (&fixture.alice.into(), &json!("alice"))
        );
    }
}

#[apply(on_both!)]
async fn a_user_adds_others_by_username(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let path = participants(fixture.of_alice);
    for id in [fixture.bob, 999_999] {
        let answer = fixture.post(&path, json!({"user_id": id})).send().await;
        answer.refused(403, "Signed-in users must name participants by username");
    }
    for name in ["carol", "bob@example.com", " bob"] {
        fixture.post(&path, json!({"username": name})).send().await.refused(404, NEITHER);
    }
    for (body, place) in [
        (json!({"username": ""}), "username"),
        (json!({"username": "x".repeat(101)}), "username"),
        (json!({"username": "bob", "user_id": fixture.bob}), "username"),
        (json!({}), "user_id"),
    ] {
        fixture.post(&path, body).send().await.invalid(&[&format!("body.{place}")]);
    }
    // Alice is a participant already.
    let own = fixture.post(&path, json!({"user_id": fixture.alice})).send().await.expect(201);
    assert_eq!(ids(&own["participants"]), [fixture.alice]);
    for name in ["bob", "BOB"] {
        let added = fixture.post(&path, json!({"username": name})).send().await.expect(201);
        assert_eq!(ids(&added["participants"]), [fixture.alice, fixture.bob]);
    }
    fixture
        .app
        .get(&conversation_path(fixture.of_alice))
        .session(&fixture.as_bob)
        .send()
        .await
        .expect(200);
    let by_key = fixture.app.post(&participants(fixture.of_bob), json!({"username": "Alice"}));
    let added = by_key.key(&fixture.key).send().await.expect(201);
    assert_eq!(ids(&added["participants"]), [fixture.alice, fixture.bob]);
}

#[apply(on_both!)]
async fn a_user_can_leave_but_not_remove_others(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    fixture.add_bob().await;
    let message = fixture.post_message(fixture.of_alice, fixture.alice).await;
    for id in [fixture.bob, 999_999] {
        let answer =
            fixture.delete(&format!("{}/{id}", participants(fixture.of_alice))).send().await;
        answer.refused(403, "A signed-in user can only leave, not remove others");
    }
    let left = fixture
        .delete(&format!("{}/{}", participants(fixture.of_alice), fixture.alice))
        .send()
        .await;
    assert_eq!(left.text, "");
    left.expect(204);
    for (call, detail) in calls(&fixture, fixture.of_alice, message) {
        let answer = call.send().await;
        assert_eq!(answer.status, 404, "{}", answer.text);
        assert_eq!(answer["detail"].as_str().unwrap_or_default(), detail);
    }
    assert_eq!(fixture.get(CONVERSATIONS).send().await.expect(200), json!([]));
    // Her messages stay, with her as the author.
    let kept = fixture
        .app
        .get(&conversation_path(fixture.of_alice))
        .session(&fixture.as_bob)
        .send()
        .await
        .expect(200);
    assert_eq!(ids(&kept["participants"]), [fixture.bob]);
    let author = json!({"id": fixture.alice, "username": "alice"});
    assert_eq!(
        (&kept["messages"][0]["content"], &kept["messages"][0]["user"]),
        (&json!("secret"), &author)
    );
}

#[apply(on_both!)]
async fn a_user_cannot_rename_or_delete_a_conversation(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let sentence = "Write scope required to change conversations";
    for id in [fixture.of_alice, fixture.of_bob, 999_999] {
        let rename = fixture
            .app
            .put(&conversation_path(id), json!({"title": "mine"}))
            .session(&fixture.as_alice);
        rename.send().await.refused(403, sentence);
        fixture.delete(&conversation_path(id)).send().await.refused(403, sentence);
    }
    let kept = fixture.get(&conversation_path(fixture.of_alice)).send().await.expect(200);
    assert_eq!(kept["title"], "a talk");
}

#[apply(on_both!)]
async fn users_see_only_the_names_of_other_users(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let id = fixture.of_alice;
    let added = fixture.post(&participants(id), json!({"username": "bob"})).send().await;
    let posted = fixture
        .app
        .post(&messages(id), user_message())
        .session(&fixture.as_bob)
        .send()
        .await
        .expect(201);
    assert_eq!(posted["user"]["email"], "bob@example.com");
    let message = format!("{}/{}", messages(id), posted["id"]);
    let batch = json!({"messages": [user_message(), user_message()]});
    let own = [
        fixture.post(CONVERSATIONS, json!({"participant_usernames": ["bob"]})).send().await,
        fixture.post(&messages(id), user_message()).send().await,
        fixture.post(&messages(id), user_message()).header("Idempotency-Key", "a").send().await,
        fixture.post(&messages(id), user_message()).header("Idempotency-Key", "a").send().await,
        fixture.post(&format!("{}/batch", messages(id)), batch).send().await,
        fixture.get(CONVERSATIONS).send().await,
        fixture.get(&format!("{CONVERSATIONS}?order=recent")).send().await,
        fixture.get(&format!("{CONVERSATIONS}/user/{}", fixture.alice)).send().await,
        fixture.get(&conversation_path(id)).send().await,
        fixture.get(&messages(id)).send().await,
        added,
    ];
    for answer in own {
        assert!([200, 201].contains(&answer.status), "{}", answer.text);
        assert!(!answer.text.contains("bob@"), "{}", answer.text);
        assert!(answer.text.contains("alice@example.com"), "{}", answer.text);
    }
    let answer = fixture.get(&message).send().await;
    assert_eq!(answer["user"], json!({"id": fixture.bob, "username": "bob"}));
    // Responses to a user's own edits show that user's email.
    let own = fixture.post(&messages(id), user_message()).send().await.expect(201);
    let edit =
        fixture.app.patch(&format!("{}/{}", messages(id), own["id"]), json!({"content": "b"}));
    let edited = edit.session(&fixture.as_alice).send().await.expect(200);
    assert_eq!(edited["user"]["email"], "alice@example.com");
}
