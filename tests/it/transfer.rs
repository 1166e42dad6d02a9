//! Exports: content, visibility, and streaming while the database is read.

use crate::support::{Answer, Backend, TestApp};
use octopus::db::query;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONVERSATIONS: &str = "/api/v1/conversations";

/// The lines of an export, parsed.
#[track_caller]
pub fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert!(answer.text.ends_with('\n'));
    answer.text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

impl TestApp {
    /// Posts a message.
    async fn post_message(&self, key: &str, id: i64, body: Value) -> Value {
        self.post(&format!("{CONVERSATIONS}/{id}/messages"), body).key(key).send().await.expect(201)
    }
}

#[apply(on_both!)]
async fn an_export_has_a_line_for_the_conversation_and_one_for_each_message(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (bob, alice) = (app.user("bob").await, app.user("alice").await);
    let body = json!({"title": "Trip \"é\"", "participant_ids": [alice, bob],
        "metadata": {"b": 1, "a": [null, 1.5]}});
    let conversation = app.post(CONVERSATIONS, body).key(&key).send().await.expect(201);
    let id = conversation["id"].as_i64().unwrap();
    let mut expected = vec![];
    for (role, user_id, metadata) in [
        ("user", Some(alice), Value::Null),
        ("assistant", None, json!({"model": "x"})),
        ("system", Some(bob), json!({})),
    ] {
        let body = json!({"role": role, "content": "two\nlines 😀", "user_id": user_id,
            "metadata": metadata});
        let posted = app.post_message(&key, id, body).await;
        let user = posted["user"].as_object().cloned().map(|mut user| {
            user.remove("id");
            Value::from(user)
        });
        expected.push(json!({"type": "message", "role": role, "content": "two\nlines 😀",
            "user": user, "metadata": metadata, "created_at": posted["created_at"],
            "edited_at": null, "deleted_at": null}));
    }
    let conversation = app.get(&format!("{CONVERSATIONS}/{id}")).key(&key).send().await.expect(200);
    let (reader, _) = app.key(&key, "conversations:read").await;
    let answer = app.get(&format!("{CONVERSATIONS}/{id}/export")).key(&reader).send().await;
    let exported = lines(&answer);
    let external_id = exported[0]["external_id"].as_str().unwrap();
    assert_eq!(external_id.len(), 32, "{external_id}");
    expected.insert(
        0,
        json!({"type": "conversation", "external_id": external_id, "title": "Trip \"é\"",
            "metadata": {"b": 1, "a": [null, 1.5]}, "created_at": conversation["created_at"],
            "updated_at": conversation["updated_at"], "message_count": 3, "participants": [
                {"username": "alice", "email": "alice@example.com"},
                {"username": "bob", "email": "bob@example.com"}]}),
    );
    assert_eq!(exported, expected);
    let second_export = app.get(&format!("{CONVERSATIONS}/{id}/export")).key(&key).send().await;
    assert_eq!(second_export.text, answer.text);
}

#[apply(on_both!)]
async fn every_conversation_has_a_unique_external_id(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    for _ in 0..5 {
        app.conversation(&key, &[]).await;
    }
    let distinct = "SELECT CAST(COUNT(DISTINCT external_id) AS BIGINT) FROM conversations";
    assert_eq!(app.number(distinct).await, 5);
}

#[apply(on_both!)]
async fn a_user_is_exported_with_every_conversation_they_participate_in(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let mut exports = vec![];
    for n in 0..3 {
        let id = app.conversation(&key, &[alice, bob][..=n % 2]).await;
        for n in 0..n * 51 {
            app.post_message(&key, id, json!({"role": "user", "content": n.to_string()})).await;
        }
        exports.push(app.get(&format!("{CONVERSATIONS}/{id}/export")).key(&key).send().await.text);
    }
    app.conversation(&key, &[bob]).await;
    let (reader, _) = app.key(&key, "read").await;
    let answer = app.get(&format!("/api/v1/users/{alice}/export")).key(&reader).send().await;
    let first = lines(&answer).remove(0);
    let user = app.get(&format!("/api/v1/users/{alice}")).key(&key).send().await.expect(200);
    assert_eq!(
        first,
        json!({"type": "user", "username": "alice", "email": "alice@example.com",
            "full_name": null, "is_active": true, "created_at": user["created_at"],
            "updated_at": user["updated_at"]})
    );
    let (_, rest) = answer.text.split_once('\n').unwrap();
    assert_eq!(rest, exports.concat());
    for narrow in ["conversations:read", "users:read"] {
        let (narrow, _) = app.key(&key, narrow).await;
        let answer = app.get(&format!("/api/v1/users/{alice}/export")).key(&narrow).send().await;
        answer.refused(403, "Read scope required to export users");
    }
}

#[apply(on_both!)]
async fn users_export_their_own_conversations_without_emails_of_others(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let shared = app.conversation(&key, &[alice, bob]).await;
    let other = app.conversation(&key, &[bob]).await;
    for user_id in [alice, bob] {
        app.post_message(&key, shared, json!({"role": "user", "content": "x", "user_id": user_id}))
            .await;
    }
    let session = app.session_of(alice).await;
    let get = |path: String| app.get(&path).session(&session).send();
    let answer = get(format!("{CONVERSATIONS}/{shared}/export")).await;
    let exported = lines(&answer);
    let (own, others) =
        (json!({"username": "alice", "email": "alice@example.com"}), json!({"username": "bob"}));
    assert_eq!(exported[0]["participants"], json!([own, others]));
    assert_eq!((&exported[1]["user"], &exported[2]["user"]), (&own, &others));
    get(format!("{CONVERSATIONS}/{other}/export")).await.refused(404, "Conversation not found");
    let all = get("/api/v1/users/me/export".to_owned()).await;
    assert_eq!(lines(&all)[0]["email"], "alice@example.com");
    assert_eq!(all.text.split_once('\n').unwrap().1, answer.text);
    let refused = get(format!("/api/v1/users/{alice}/export")).await;
    refused.refused(403, "Read scope required to export users");
    let refused = app.get("/api/v1/users/me/export").key(&key).send().await;
    refused.refused(403, "A signed-in user is required");
    // A user who left a conversation no longer exports it.
    let path = format!("{CONVERSATIONS}/{shared}/participants/{alice}");
    app.delete(&path).key(&key).send().await.expect(200);
    get(format!("{CONVERSATIONS}/{shared}/export")).await.refused(404, "Conversation not found");
    assert_eq!(lines(&get("/api/v1/users/me/export".to_owned()).await).len(), 1);
}

/// Inserts `n` messages of 2000 letters each, without an author, into a new conversation. The
/// letters are in the metadata, which is not indexed, because indexing them takes long.
async fn long_conversation(app: &TestApp, key: &str, n: i64) -> i64 {
    const SQL: &str = "INSERT INTO messages (conversation_id, seq, role, content, metadata, created_at) \
        VALUES ($1, $2, 'user', 'x', $3, $4)";
    let id = app.conversation(key, &[]).await;
    let text = json!({"text": "x".repeat(2000)}).to_string();
    let now = app.state.clock.now();
    let mut tx = app.state.db.begin().await.unwrap();
    for seq in 1..=n {
        let statement = query(&mut tx, SQL).bind(id).bind(seq).bind(&*text).bind(now);
        statement.execute().await.unwrap();
    }
    let last = "UPDATE conversations SET last_seq = $1 WHERE id = $2";
    query(&mut tx, last).bind(n).bind(id).execute().await.unwrap();
    tx.commit().await.unwrap();
    id
}

#[apply(on_both!)]
async fn a_long_conversation_is_streamed_while_it_is_read(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = long_conversation(&app, &key, 20_000).await;
    let path = format!("{CONVERSATIONS}/{id}/export");
    let whole = app.get(&path).key(&key).send().await;
    assert_eq!(lines(&whole).len(), 20_001);

    // A reader stops after the first kilobyte. The server has not yet read the rest; otherwise the
    // complete response would arrive.
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {key}\r\nConnection: close\r\n\r\n"
    );
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 1024];
    stream.read_exact(&mut first).await.unwrap();
    // A message appended later is not part of the export.
    app.post_message(&key, id, json!({"role": "user", "content": "late"})).await;
    // Marks the conversation as removed; deleting its rows takes longer.
    let retire = format!("UPDATE conversations SET retired_at = created_at WHERE id = {id}");
    backend.execute(retire).await;
    let mut rest = vec![];
    let _ = stream.read_to_end(&mut rest).await;
    let bytes = whole.text.len();
    assert!(rest.len() < bytes / 2, "{} of {bytes} bytes were in flight", rest.len());
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "an interrupted response must not look complete");
}

#[apply(on_both!)]
async fn unknown_conversations_and_users_cannot_be_exported(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let answer = app.get(&format!("{CONVERSATIONS}/99/export")).key(&key).send().await;
    answer.refused(404, "Conversation not found");
    app.get("/api/v1/users/99/export").key(&key).send().await.refused(404, "User not found");
    app.get(&format!("{CONVERSATIONS}/x/export"))
        .key(&key)
        .send()
        .await
        .invalid(&["path.conversation_id"]);
}
