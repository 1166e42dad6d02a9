//! Editing and deleting messages: permissions, versions and timestamps.

mod metadata;

use crate::support::{Answer, Backend, Call, TestApp};
use chrono::TimeDelta;
use serde_json::{Value, json};

const CONVERSATIONS: &str = "/api/v1/conversations";

fn messages(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}/messages")
}

/// A message by Alice in a new conversation of Alice and Bob.
struct Fixture {
    app: TestApp,
    key: String,
    id: i64,
    as_alice: String,
    as_bob: String,
    /// The path of the message.
    path: String,
}

impl Fixture {
    async fn new(backend: &Backend) -> Self {
        let app = TestApp::new(backend).await;
        let key = app.admin().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let id = app.conversation(&key, &[alice, bob]).await;
        let (as_alice, as_bob) = (app.session_of(alice).await, app.session_of(bob).await);
        let body = json!({"role": "user", "content": "a secret", "metadata": {"mood": "good"}});
        let message = app.post(&messages(id), body).session(&as_alice).send().await.expect(201);
        let path = format!("{}/{}", messages(id), message["id"]);
        Self { app, key, id, as_alice, as_bob, path }
    }

    async fn message(&self) -> Value {
        self.app.get(&self.path).key(&self.key).send().await.expect(200)
    }

    async fn conversation(&self) -> Value {
        self.app
            .get(&format!("{CONVERSATIONS}/{}", self.id))
            .key(&self.key)
            .send()
            .await
            .expect(200)
    }

    /// An edit without a credential.
    fn edit(&self, content: &str) -> Call {
        self.app.patch(&self.path, json!({"content": content}))
    }

    fn delete(&self) -> Call {
        self.app.delete(&self.path)
    }
}

#[apply(on_both!)]
async fn a_message_carries_its_version(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let body = json!({"role": "system", "content": "x"});
    let new = fixture.app.post(&messages(fixture.id), body).key(&fixture.key).send().await;
    assert_eq!((new.header("etag"), &new["version"]), (Some("\"1\""), &json!(1)));
    for version in 1..4 {
        let tag = format!("\"{version}\"");
        for session in [&fixture.as_alice, &fixture.as_bob] {
            let got = fixture.app.get(&fixture.path).session(session).send().await;
            assert_eq!((got.header("etag"), &got["version"]), (Some(&*tag), &json!(version)));
        }
        let edited = fixture.edit("x").key(&fixture.key).header("If-Match", &tag).send().await;
        let next = format!("\"{}\"", version + 1);
        assert_eq!(
            (edited.header("etag"), &edited["version"]),
            (Some(&*next), &json!(version + 1))
        );
        let got = fixture.message().await;
        assert_eq!(edited.expect(200), got);
    }
    let listed = fixture.app.get(&messages(fixture.id)).key(&fixture.key).send().await;
    assert_eq!((listed.header("etag"), &listed.body[0]["version"]), (None, &json!(4)));
}

#[apply(on_both!)]
async fn an_author_can_edit_and_delete_their_messages(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let before = fixture.message().await;
    for call in
        [fixture.edit("mine"), fixture.edit("mine").header("If-Match", "\"7\""), fixture.delete()]
    {
        let answer = call.session(&fixture.as_bob).send().await;
        answer.refused(403, "Only its author may change a message");
    }
    assert_eq!(fixture.message().await, before);
    fixture.app.advance(TimeDelta::minutes(1));
    let edited = fixture.edit("a riddle").session(&fixture.as_alice).send().await.expect(200);
    assert!(edited["edited_at"].as_str() > before["created_at"].as_str(), "{edited}");
    let mut expected = before.clone();
    expected["content"] = json!("a riddle");
    expected["edited_at"] = edited["edited_at"].clone();
    expected["version"] = json!(2);
    assert_eq!((&edited, &fixture.message().await), (&expected, &expected));
    let deleted = fixture.delete().session(&fixture.as_alice).send().await;
    assert_eq!(deleted.text, "");
    deleted.expect(204);
    // Only a key can change a message without an author.
    let body = json!({"role": "assistant", "content": "x"});
    let new =
        fixture.app.post(&messages(fixture.id), body).key(&fixture.key).send().await.expect(201);
    let path = format!("{}/{}", messages(fixture.id), new["id"]);
    let answer = fixture.app.delete(&path).session(&fixture.as_alice).send().await;
    answer.refused(403, "Only its author may change a message");
}

#[apply(on_both!)]
async fn a_key_can_edit_and_delete_messages_of_any_author(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let (reader, _) = fixture.app.key(&fixture.key, "conversations:read").await;
    let (writer, _) = fixture.app.key(&fixture.key, "conversations:read,conversations:write").await;
    for call in [fixture.edit("x"), fixture.delete()] {
        let answer = call.key(&reader).send().await;
        answer.refused(403, "Write scope required to change conversations");
    }
    let edited = fixture.edit("x").key(&writer).send().await.expect(200);
    // The author stays the same.
    assert_eq!(edited["user"]["username"], "alice");
    fixture.delete().key(&writer).send().await.expect(204);
    for call in [fixture.edit("x"), fixture.delete()] {
        call.send().await.expect(401);
    }
}

/// Values of `If-Match` that do not match version 2.
const OTHERS: [&str; 9] =
    ["\"1\"", "\"3\"", "W/\"3\"", "2", "\"two\"", "", "\"1\", \"3\"", "\"2", "nonsense"];
const STALE: u16 = 412;

#[apply(on_both!)]
async fn an_edit_with_if_match_needs_the_current_version(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let edit = |tag: &str| fixture.edit("x").session(&fixture.as_alice).header("If-Match", tag);
    edit("\"1\"").send().await.expect(200);
    let before = fixture.message().await;
    for tag in OTHERS {
        edit(tag).send().await.expect(STALE);
        // Also for an edit without changes.
        let nothing = fixture.app.patch(&fixture.path, json!({})).key(&fixture.key);
        nothing.header("If-Match", tag).send().await.expect(STALE);
    }
    assert_eq!(fixture.message().await, before);
    for (version, tag) in (3..).zip(["\"2\"", "\"1\", \"3\"", "*", "W/\"5\"", " \"6\" "]) {
        assert_eq!(edit(tag).send().await.expect(200)["version"], version, "{tag}");
    }
    let twice = edit("\"1\"").header("If-Match", "\"7\"").send().await;
    assert_eq!(twice.expect(200)["version"], 8);
    // A message that does not exist matches no version.
    let path = format!("{}/999999", messages(fixture.id));
    let none = fixture.app.patch(&path, json!({"content": "x"})).key(&fixture.key);
    none.header("If-Match", "*").send().await.refused(404, "Message not found");
}

#[apply(on_both!)]
async fn a_deletion_with_if_match_needs_the_current_version(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    fixture.edit("x").key(&fixture.key).send().await.expect(200);
    let before = fixture.message().await;
    for tag in OTHERS {
        fixture.delete().key(&fixture.key).header("If-Match", tag).send().await.expect(STALE);
    }
    assert_eq!(fixture.message().await, before);
    fixture.delete().key(&fixture.key).header("If-Match", "\"2\"").send().await.expect(204);
    assert_eq!(fixture.message().await["version"], 3);
}

#[apply(on_both!)]
async fn of_64_concurrent_edits_of_one_version_exactly_one_succeeds(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for version in 1..4 {
        let tag = format!("\"{version}\"");
        let edits = fixture.app.send_concurrently(32, || {
            fixture.edit("Alice's").session(&fixture.as_alice).header("If-Match", &tag)
        });
        let others = fixture.app.send_concurrently(32, || {
            fixture.edit("the key's").key(&fixture.key).header("If-Match", &tag)
        });
        let (edits, others) = tokio::join!(edits, others);
        let (won, lost): (Vec<Answer>, Vec<Answer>) =
            edits.into_iter().chain(others).partition(|answer| answer.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 63));
        assert!(lost.iter().all(|answer| answer.status == STALE), "{lost:?}");
        assert_eq!(fixture.message().await, won[0].body);
    }
}

#[apply(on_both!)]
async fn concurrent_edits_and_deletions_lose_no_change(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let edits = fixture.app.send_concurrently(32, || fixture.edit("x").key(&fixture.key)).await;
    assert!(edits.iter().all(|answer| answer.status == 200));
    let mut versions: Vec<_> = edits.iter().map(|a| a["version"].as_i64().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..=33).collect::<Vec<_>>());
    let edits = fixture.app.send_concurrently(16, || fixture.edit("late").key(&fixture.key));
    let deletions =
        fixture.app.send_concurrently(16, || fixture.delete().session(&fixture.as_alice));
    let (edits, deletions) = tokio::join!(edits, deletions);
    assert!(deletions.iter().all(|answer| answer.status == 204), "{deletions:?}");
    let edited = edits.iter().filter(|answer| answer.status == 200).count();
    assert!(edits.iter().all(|answer| [200, 409].contains(&answer.status)), "{edits:?}");
    let left = fixture.message().await;
    assert_eq!((&left["content"], &left["version"]), (&json!(""), &json!(34 + edited)));
}

#[apply(on_both!)]
async fn an_edit_without_changes_changes_nothing(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let (message, conversation) = (fixture.message().await, fixture.conversation().await);
    fixture.app.advance(TimeDelta::minutes(1));
    for tag in ["*", "\"1\""] {
        let call = fixture.app.patch(&fixture.path, json!({})).session(&fixture.as_alice);
        let answer = call.header("If-Match", tag).send().await;
        assert_eq!(answer.header("etag"), Some("\"1\""));
        assert_eq!(answer.expect(200), message);
    }
    assert_eq!((fixture.message().await, fixture.conversation().await), (message, conversation));
}

#[apply(on_both!)]
async fn an_edit_that_breaks_a_rule_changes_nothing(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let before = fixture.message().await;
    for (body, places) in [
        (json!({"content": ""}), &["body.content"][..]),
        (json!({"content": null}), &["body.content"]),
        (json!({"content": 1}), &["body.content"]),
        (json!({"content": "é".repeat(100_001)}), &["body.content"]),
        (json!({"content": "a\0b"}), &["body.content"]),
        (json!({"content": "x", "role": "system"}), &["body.role"]),
        (json!({"user_id": 2, "seq": 7}), &["body.seq", "body.user_id"]),
        (json!({"deleted_at": null}), &["body.deleted_at"]),
        (
            json!({"content": "", "metadata": 1, "x": 1}),
            &["body.content", "body.metadata", "body.x"],
        ),
        (json!([]), &["body"]),
    ] {
        let answer = fixture.app.patch(&fixture.path, body).session(&fixture.as_alice).send().await;
        answer.invalid(places);
    }
    assert_eq!(fixture.message().await, before);
    let longest = "é".repeat(100_000);
    let edited = fixture.edit(&longest).session(&fixture.as_alice).send().await.expect(200);
    assert!(edited["content"] == longest.as_str());
}

#[apply(on_both!)]
async fn a_deleted_message_loses_its_content_and_keeps_its_place(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let body = json!({"role": "user", "content": "after it"});
    fixture.app.post(&messages(fixture.id), body).session(&fixture.as_bob).send().await.expect(201);
    let before = fixture.message().await;
    fixture.app.advance(TimeDelta::minutes(1));
    fixture.edit("another secret").session(&fixture.as_alice).send().await.expect(200);
    fixture.delete().session(&fixture.as_alice).send().await.expect(204);
    let left = fixture.message().await;
    assert!(left["deleted_at"].as_str() > before["created_at"].as_str(), "{left}");
    let mut expected = before.clone();
    for (field, value) in [("content", json!("")), ("metadata", Value::Null), ("version", json!(3))]
    {
        expected[field] = value;
    }
    for field in ["edited_at", "deleted_at"] {
        expected[field] = left[field].clone();
    }
    assert_eq!(left, expected);
    let stored: Vec<(String, Option<String>)> =
        fixture.app.rows("SELECT content, metadata FROM messages ORDER BY seq").await;
    assert_eq!(stored, [(String::new(), None), ("after it".to_owned(), None)]);
    // The deleted message keeps its place in every list.
    let conversation = fixture.conversation().await;
    let listed = fixture.app.get(&messages(fixture.id)).session(&fixture.as_bob).send().await;
    assert_eq!((&conversation["message_count"], &conversation["messages"][0]), (&json!(2), &left));
    assert!(!listed.text.contains("secret"), "{}", listed.text);
    assert_eq!(listed.expect(200)[0]["seq"], 1);
    for body in [json!({"content": "back"}), json!({"metadata": {}}), json!({})] {
        let answer = fixture.app.patch(&fixture.path, body).session(&fixture.as_alice).send().await;
        answer.refused(409, "This message was deleted");
    }
    // Deletion is idempotent, and the next message has the next number.
    for call in [fixture.delete().session(&fixture.as_alice), fixture.delete().key(&fixture.key)] {
        call.send().await.expect(204);
    }
    assert_eq!((fixture.message().await, fixture.conversation().await), (left, conversation));
    let answer = fixture.delete().session(&fixture.as_bob).send().await;
    answer.refused(403, "Only its author may change a message");
    let body = json!({"role": "user", "content": "x"});
    let next =
        fixture.app.post(&messages(fixture.id), body).key(&fixture.key).send().await.expect(201);
    assert_eq!(next["seq"], 3);
}

#[apply(on_both!)]
async fn a_message_is_found_under_its_own_conversation_only(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let other = fixture.app.conversation(&fixture.key, &[]).await;
    let id = fixture.message().await["id"].as_i64().unwrap();
    for (conversation, message, detail) in [
        (other, id, "Message not found"),
        (fixture.id, id + 1, "Message not found"),
        (999_999, id, "Conversation not found"),
    ] {
        let path = format!("{}/{message}", messages(conversation));
        let edit = fixture.app.patch(&path, json!({"content": "x"}));
        for call in [fixture.app.get(&path), edit, fixture.app.delete(&path)] {
            call.key(&fixture.key).send().await.refused(404, detail);
        }
    }
    for message in ["0", "-1", "x", "9223372036854775808"] {
        let path = format!("{}/{message}", messages(fixture.id));
        fixture.app.get(&path).key(&fixture.key).send().await.expect(422);
    }
    assert_eq!(fixture.message().await["version"], 1);
}

#[apply(on_both!)]
async fn edits_and_deletions_update_only_updated_at(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let mut before = fixture.conversation().await;
    for (call, moves) in [
        (fixture.edit("x"), true),
        (fixture.app.patch(&fixture.path, json!({"metadata": null})), true),
        (fixture.app.patch(&fixture.path, json!({})), false),
        (fixture.edit("x").header("If-Match", "\"9\""), false),
        (fixture.delete(), true),
        (fixture.delete(), false),
        (fixture.edit("x"), false),
    ] {
        fixture.app.advance(TimeDelta::seconds(1));
        call.key(&fixture.key).send().await;
        let after = fixture.conversation().await;
        let moved = after["updated_at"].as_str() > before["updated_at"].as_str();
        assert_eq!(moved, moves, "{after}");
        // The order by last message is unchanged.
        assert_eq!(after["last_message_at"], before["last_message_at"]);
        before = after;
    }
}

/// Requests that wait for the conversation read the clock before they wait.
#[apply(on_both!)]
async fn times_increase_under_concurrent_changes(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let path = format!("{CONVERSATIONS}/{}", fixture.id);
    let body = json!({"role": "user", "content": "x"});
    let posting = fixture.app.send_concurrently(48, || {
        fixture.app.post(&messages(fixture.id), body.clone()).key(&fixture.key)
    });
    let renaming = fixture
        .app
        .send_concurrently(48, || fixture.app.put(&path, json!({"title": "x"})).key(&fixture.key));
    let editing = fixture.app.send_concurrently(16, || fixture.edit("x").key(&fixture.key));
    let answers = tokio::join!(posting, renaming, editing);
    for answer in answers.0.iter().chain(&answers.1).chain(&answers.2) {
        assert!([200, 201].contains(&answer.status), "{answer:?}");
    }
    let all = fixture.conversation().await;
    let messages = all["messages"].as_array().unwrap();
    let times: Vec<_> = messages.iter().map(|m| m["created_at"].as_str().unwrap()).collect();
    assert!(times.len() == 49 && times.is_sorted(), "{times:?}");
    assert_eq!(all["last_message_at"].as_str(), times.last().copied());
    assert!(all["updated_at"].as_str() >= times.last().copied(), "{all}");
}
