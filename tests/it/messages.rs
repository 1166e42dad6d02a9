//! Messages that are edited and deleted, by whom, and when they are not what they were.

mod metadata;

use crate::support::{Answer, Backend, Call, TestApp, tests};
use chrono::TimeDelta;
use serde_json::{Value, json};

// The list below names each of them, and an unlisted one is dead code.
#[expect(clippy::wildcard_imports, reason = "a second list of the tests would tell nothing")]
use metadata::*;

tests!(on_both: [
    a_message_carries_its_version,
    an_author_edits_and_deletes_what_they_said,
    a_key_edits_and_deletes_what_anybody_said,
    an_edit_is_meant_for_a_version,
    a_deletion_is_meant_for_a_version,
    of_64_editors_of_one_version_exactly_one_has_their_way,
    edits_and_deletions_at_once_lose_nothing,
    an_edit_without_changes_changes_nothing,
    an_edit_that_breaks_a_rule_changes_nothing,
    what_is_deleted_is_gone_and_keeps_its_place,
    a_message_is_found_under_its_own_conversation_only,
    edits_and_deletions_move_the_time_of_change_only,
    times_go_forward_whatever_is_changed_meanwhile,
    metadata_is_an_object,
    metadata_has_at_most_16_kib,
    metadata_comes_back_as_it_was_sent,
    metadata_of_a_message_is_replaced_and_cleared,
    metadata_of_a_conversation_is_replaced,
]);

const TALKS: &str = "/api/v1/conversations";

fn messages(id: i64) -> String {
    format!("{TALKS}/{id}/messages")
}

/// Something said in a new conversation of Alice and Bob, by Alice.
struct Said {
    app: TestApp,
    key: String,
    id: i64,
    as_alice: String,
    as_bob: String,
    /// Where the message is.
    path: String,
}

impl Said {
    async fn new(backend: &Backend) -> Self {
        let app = TestApp::new(backend).await;
        let key = app.admin().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let id = app.conversation(&key, &[alice, bob]).await;
        let (as_alice, as_bob) = (app.session_of(alice).await, app.session_of(bob).await);
        let body = json!({"role": "user", "content": "a secret", "metadata": {"mood": "good"}});
        let said = app.post(&messages(id), body).session(&as_alice).send().await.expect(201);
        let path = format!("{}/{}", messages(id), said["id"]);
        Self { app, key, id, as_alice, as_bob, path }
    }

    async fn message(&self) -> Value {
        self.app.get(&self.path).key(&self.key).send().await.expect(200)
    }

    async fn conversation(&self) -> Value {
        self.app.get(&format!("{TALKS}/{}", self.id)).key(&self.key).send().await.expect(200)
    }

    /// An edit, to be sent by somebody.
    fn edit(&self, content: &str) -> Call {
        self.app.patch(&self.path, json!({"content": content}))
    }

    fn delete(&self) -> Call {
        self.app.delete(&self.path)
    }
}

async fn a_message_carries_its_version(backend: Backend) {
    let said = Said::new(&backend).await;
    let body = json!({"role": "system", "content": "x"});
    let new = said.app.post(&messages(said.id), body).key(&said.key).send().await;
    assert_eq!((new.header("etag"), &new["version"]), (Some("\"1\""), &json!(1)));
    for version in 1..4 {
        let tag = format!("\"{version}\"");
        for session in [&said.as_alice, &said.as_bob] {
            let got = said.app.get(&said.path).session(session).send().await;
            assert_eq!((got.header("etag"), &got["version"]), (Some(&*tag), &json!(version)));
        }
        let edited = said.edit("x").key(&said.key).header("If-Match", &tag).send().await;
        let next = format!("\"{}\"", version + 1);
        assert_eq!(
            (edited.header("etag"), &edited["version"]),
            (Some(&*next), &json!(version + 1))
        );
        let got = said.message().await;
        assert_eq!(edited.expect(200), got);
    }
    let listed = said.app.get(&messages(said.id)).key(&said.key).send().await;
    assert_eq!((listed.header("etag"), &listed.body[0]["version"]), (None, &json!(4)));
}

async fn an_author_edits_and_deletes_what_they_said(backend: Backend) {
    let said = Said::new(&backend).await;
    let before = said.message().await;
    for call in [said.edit("mine"), said.edit("mine").header("If-Match", "\"7\""), said.delete()] {
        let answer = call.session(&said.as_bob).send().await;
        answer.refused(403, "Only its author may change a message");
    }
    assert_eq!(said.message().await, before);
    said.app.advance(TimeDelta::minutes(1));
    let edited = said.edit("a riddle").session(&said.as_alice).send().await.expect(200);
    assert!(edited["edited_at"].as_str() > before["created_at"].as_str(), "{edited}");
    let mut expected = before.clone();
    expected["content"] = json!("a riddle");
    expected["edited_at"] = edited["edited_at"].clone();
    expected["version"] = json!(2);
    assert_eq!((&edited, &said.message().await), (&expected, &expected));
    let deleted = said.delete().session(&said.as_alice).send().await;
    assert_eq!(deleted.text, "");
    deleted.expect(204);
    // What nobody said as a user is nobody's to change but a key's.
    let body = json!({"role": "assistant", "content": "x"});
    let new = said.app.post(&messages(said.id), body).key(&said.key).send().await.expect(201);
    let path = format!("{}/{}", messages(said.id), new["id"]);
    let answer = said.app.delete(&path).session(&said.as_alice).send().await;
    answer.refused(403, "Only its author may change a message");
}

async fn a_key_edits_and_deletes_what_anybody_said(backend: Backend) {
    let said = Said::new(&backend).await;
    let (reader, _) = said.app.key(&said.key, "conversations:read").await;
    let (writer, _) = said.app.key(&said.key, "conversations:read,conversations:write").await;
    for call in [said.edit("x"), said.delete()] {
        let answer = call.key(&reader).send().await;
        answer.refused(403, "Write scope required to change conversations");
    }
    let edited = said.edit("x").key(&writer).send().await.expect(200);
    // It does not make the message the key's.
    assert_eq!(edited["user"]["username"], "alice");
    said.delete().key(&writer).send().await.expect(204);
    for call in [said.edit("x"), said.delete()] {
        call.send().await.expect(401);
    }
}

/// Field values that mean another version than `"2"`.
const OTHERS: [&str; 9] =
    ["\"1\"", "\"3\"", "W/\"2\"", "2", "\"two\"", "", "\"1\", \"3\"", "\"2", "nonsense"];
const STALE: u16 = 412;

async fn an_edit_is_meant_for_a_version(backend: Backend) {
    let said = Said::new(&backend).await;
    let edit = |tag: &str| said.edit("x").session(&said.as_alice).header("If-Match", tag);
    edit("\"1\"").send().await.expect(200);
    let before = said.message().await;
    for tag in OTHERS {
        edit(tag).send().await.expect(STALE);
        // Also where there would be nothing to do.
        let nothing = said.app.patch(&said.path, json!({})).key(&said.key);
        nothing.header("If-Match", tag).send().await.expect(STALE);
    }
    assert_eq!(said.message().await, before);
    for (version, tag) in (3..).zip(["\"2\"", "\"1\", \"3\"", "*", "W/\"5\", \"5\"", " \"6\" "]) {
        assert_eq!(edit(tag).send().await.expect(200)["version"], version, "{tag}");
    }
    let twice = edit("\"1\"").header("If-Match", "\"7\"").send().await;
    assert_eq!(twice.expect(200)["version"], 8);
    // What is not there has no version.
    let path = format!("{}/999999", messages(said.id));
    let none = said.app.patch(&path, json!({"content": "x"})).key(&said.key);
    none.header("If-Match", "*").send().await.refused(404, "Message not found");
}

async fn a_deletion_is_meant_for_a_version(backend: Backend) {
    let said = Said::new(&backend).await;
    said.edit("x").key(&said.key).send().await.expect(200);
    let before = said.message().await;
    for tag in OTHERS {
        said.delete().key(&said.key).header("If-Match", tag).send().await.expect(STALE);
    }
    assert_eq!(said.message().await, before);
    said.delete().key(&said.key).header("If-Match", "\"2\"").send().await.expect(204);
    assert_eq!(said.message().await["version"], 3);
}

async fn of_64_editors_of_one_version_exactly_one_has_their_way(backend: Backend) {
    let said = Said::new(&backend).await;
    for version in 1..4 {
        let tag = format!("\"{version}\"");
        let edits = said
            .app
            .at_once(32, || said.edit("Alice's").session(&said.as_alice).header("If-Match", &tag));
        let others =
            said.app.at_once(32, || said.edit("the key's").key(&said.key).header("If-Match", &tag));
        let (edits, others) = tokio::join!(edits, others);
        let (won, lost): (Vec<Answer>, Vec<Answer>) =
            edits.into_iter().chain(others).partition(|answer| answer.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 63));
        assert!(lost.iter().all(|answer| answer.status == STALE), "{lost:?}");
        assert_eq!(said.message().await, won[0].body);
    }
}

async fn edits_and_deletions_at_once_lose_nothing(backend: Backend) {
    let said = Said::new(&backend).await;
    let edits = said.app.at_once(32, || said.edit("x").key(&said.key)).await;
    assert!(edits.iter().all(|answer| answer.status == 200));
    let mut versions: Vec<_> = edits.iter().map(|a| a["version"].as_i64().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..=33).collect::<Vec<_>>());
    let edits = said.app.at_once(16, || said.edit("late").key(&said.key));
    let deletions = said.app.at_once(16, || said.delete().session(&said.as_alice));
    let (edits, deletions) = tokio::join!(edits, deletions);
    assert!(deletions.iter().all(|answer| answer.status == 204), "{deletions:?}");
    let edited = edits.iter().filter(|answer| answer.status == 200).count();
    assert!(edits.iter().all(|answer| [200, 409].contains(&answer.status)), "{edits:?}");
    let left = said.message().await;
    assert_eq!((&left["content"], &left["version"]), (&json!(""), &json!(34 + edited)));
}

async fn an_edit_without_changes_changes_nothing(backend: Backend) {
    let said = Said::new(&backend).await;
    let (message, conversation) = (said.message().await, said.conversation().await);
    said.app.advance(TimeDelta::minutes(1));
    for tag in ["*", "\"1\""] {
        let call = said.app.patch(&said.path, json!({})).session(&said.as_alice);
        let answer = call.header("If-Match", tag).send().await;
        assert_eq!(answer.header("etag"), Some("\"1\""));
        assert_eq!(answer.expect(200), message);
    }
    assert_eq!((said.message().await, said.conversation().await), (message, conversation));
}

async fn an_edit_that_breaks_a_rule_changes_nothing(backend: Backend) {
    let said = Said::new(&backend).await;
    let before = said.message().await;
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
        let answer = said.app.patch(&said.path, body).session(&said.as_alice).send().await;
        answer.invalid(places);
    }
    assert_eq!(said.message().await, before);
    let longest = "é".repeat(100_000);
    let edited = said.edit(&longest).session(&said.as_alice).send().await.expect(200);
    assert!(edited["content"] == longest.as_str());
}

async fn what_is_deleted_is_gone_and_keeps_its_place(backend: Backend) {
    let said = Said::new(&backend).await;
    let body = json!({"role": "user", "content": "after it"});
    said.app.post(&messages(said.id), body).session(&said.as_bob).send().await.expect(201);
    let before = said.message().await;
    said.app.advance(TimeDelta::minutes(1));
    said.edit("another secret").session(&said.as_alice).send().await.expect(200);
    said.delete().session(&said.as_alice).send().await.expect(204);
    let left = said.message().await;
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
        said.app.rows("SELECT content, metadata FROM messages ORDER BY seq").await;
    assert_eq!(stored, [(String::new(), None), ("after it".to_owned(), None)]);
    // It is shown in its place, everywhere.
    let conversation = said.conversation().await;
    let listed = said.app.get(&messages(said.id)).session(&said.as_bob).send().await;
    assert_eq!((&conversation["message_count"], &conversation["messages"][0]), (&json!(2), &left));
    assert!(!listed.text.contains("secret"), "{}", listed.text);
    assert_eq!(listed.expect(200)[0]["seq"], 1);
    for body in [json!({"content": "back"}), json!({"metadata": {}}), json!({})] {
        let answer = said.app.patch(&said.path, body).session(&said.as_alice).send().await;
        answer.refused(409, "This message was deleted");
    }
    // Again is as good as once, and the message that follows has the next number.
    for call in [said.delete().session(&said.as_alice), said.delete().key(&said.key)] {
        call.send().await.expect(204);
    }
    assert_eq!((said.message().await, said.conversation().await), (left, conversation));
    let answer = said.delete().session(&said.as_bob).send().await;
    answer.refused(403, "Only its author may change a message");
    let body = json!({"role": "user", "content": "x"});
    let next = said.app.post(&messages(said.id), body).key(&said.key).send().await.expect(201);
    assert_eq!(next["seq"], 3);
}

async fn a_message_is_found_under_its_own_conversation_only(backend: Backend) {
    let said = Said::new(&backend).await;
    let other = said.app.conversation(&said.key, &[]).await;
    let id = said.message().await["id"].as_i64().unwrap();
    for (conversation, message, detail) in [
        (other, id, "Message not found"),
        (said.id, id + 1, "Message not found"),
        (999_999, id, "Conversation not found"),
    ] {
        let path = format!("{}/{message}", messages(conversation));
        let edit = said.app.patch(&path, json!({"content": "x"}));
        for call in [said.app.get(&path), edit, said.app.delete(&path)] {
            call.key(&said.key).send().await.refused(404, detail);
        }
    }
    for message in ["0", "-1", "x", "9223372036854775808"] {
        let path = format!("{}/{message}", messages(said.id));
        said.app.get(&path).key(&said.key).send().await.expect(422);
    }
    assert_eq!(said.message().await["version"], 1);
}

async fn edits_and_deletions_move_the_time_of_change_only(backend: Backend) {
    let said = Said::new(&backend).await;
    let mut before = said.conversation().await;
    for (call, moves) in [
        (said.edit("x"), true),
        (said.app.patch(&said.path, json!({"metadata": null})), true),
        (said.app.patch(&said.path, json!({})), false),
        (said.edit("x").header("If-Match", "\"9\""), false),
        (said.delete(), true),
        (said.delete(), false),
        (said.edit("x"), false),
    ] {
        said.app.advance(TimeDelta::seconds(1));
        call.key(&said.key).send().await;
        let after = said.conversation().await;
        let moved = after["updated_at"].as_str() > before["updated_at"].as_str();
        assert_eq!(moved, moves, "{after}");
        // The list by what was said last stays as it is.
        assert_eq!(after["last_message_at"], before["last_message_at"]);
        before = after;
    }
}

/// Whoever waits for the conversation has looked at the clock before.
async fn times_go_forward_whatever_is_changed_meanwhile(backend: Backend) {
    let said = Said::new(&backend).await;
    let path = format!("{TALKS}/{}", said.id);
    let body = json!({"role": "user", "content": "x"});
    let saying =
        said.app.at_once(48, || said.app.post(&messages(said.id), body.clone()).key(&said.key));
    let renaming =
        said.app.at_once(48, || said.app.put(&path, json!({"title": "x"})).key(&said.key));
    let editing = said.app.at_once(16, || said.edit("x").key(&said.key));
    let answers = tokio::join!(saying, renaming, editing);
    for answer in answers.0.iter().chain(&answers.1).chain(&answers.2) {
        assert!([200, 201].contains(&answer.status), "{answer:?}");
    }
    let all = said.conversation().await;
    let messages = all["messages"].as_array().unwrap();
    let times: Vec<_> = messages.iter().map(|m| m["created_at"].as_str().unwrap()).collect();
    assert!(times.len() == 49 && times.is_sorted(), "{times:?}");
    assert_eq!(all["last_message_at"].as_str(), times.last().copied());
    assert!(all["updated_at"].as_str() >= times.last().copied(), "{all}");
}
