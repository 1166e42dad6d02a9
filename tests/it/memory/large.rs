//! Responses that are too large for memory have the same content as small ones.

use crate::support::{Backend, TestApp};
use serde_json::{Value, json};

const CONVERSATIONS: &str = "/api/v1/conversations";
const CAP: usize = 16 * 1024 * 1024;

/// A subquery with the numbers 1 to `last`.
fn series(last: usize) -> String {
    format!(
        "WITH RECURSIVE series (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {last})"
    )
}

/// Creates users 1 to `count`.
async fn users(backend: &Backend, count: usize) {
    let sql = format!(
        "INSERT INTO users (email, email_key, username, username_key, password_hash, created_at, updated_at) \
         {} SELECT 'user' || n || '@example.com', 'user' || n || '@example.com', 'user' || n, 'user' || n, \
         '', '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00' FROM series",
        series(count)
    );
    backend.execute(sql).await;
}

/// Creates conversations 1 to `count`.
async fn create_conversations(backend: &Backend, count: usize) {
    let sql = format!(
        "INSERT INTO conversations (title, last_seq, active_at, created_at, updated_at) {} \
         SELECT 'talk ' || n, 0, '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00', \
         '2026-01-01T00:00:00+00:00' FROM series",
        series(count)
    );
    backend.execute(sql).await;
}

/// Adds `count` messages with `content` to conversation `id`.
async fn fill(backend: &Backend, id: usize, count: usize, content: &str) {
    let sql = format!(
        "INSERT INTO messages (conversation_id, seq, role, content, user_id, created_at) {} \
         SELECT {id}, n, 'user', n || '{content}', 1, '2026-01-01T00:00:00+00:00' FROM series; \
         UPDATE conversations SET last_seq = {count} WHERE id = {id}",
        series(count)
    );
    backend.execute(sql).await;
}

#[apply(on_both!)]
async fn a_large_list_is_the_conversations_one_by_one(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    users(&backend, 150).await;
    create_conversations(&backend, 80).await;
    let join = "INSERT INTO participants (conversation_id, user_id) \
        SELECT c.id, u.id FROM conversations c CROSS JOIN users u WHERE u.id <= 2 + c.id * 2";
    backend.execute(join).await;
    let escaped = "\u{1}\"\\\n".repeat(5000);
    for (id, count, content) in [
        (2, 3, "short"),
        (3, 40, &*"ü".repeat(5000)),
        (4, 1, &*"😀".repeat(90_000)),
        (6, 1000, "many"),
        (7, 60, &*escaped),
        (80, 2, "last"),
    ] {
        fill(&backend, id, count, content).await;
    }
    let session = app.session_of(150).await;
    for order in ["asc", "desc", "recent"] {
        for limit in [0, 1, 20, 1000] {
            let query = format!("order={order}&message_limit={limit}");
            let list = app.get(&format!("{CONVERSATIONS}?{query}")).key(&key).send().await;
            let small = app.get(&format!("{CONVERSATIONS}?order={order}&message_limit=0"));
            let small = small.key(&key).send().await;
            assert_eq!(list.link("next").is_some(), small.link("next").is_some());
            let (list, ids) = (list.expect(200), small.expect(200));
            let id_of = |conversation: &Value| conversation["id"].as_i64().unwrap();
            let ids: Vec<i64> = ids.as_array().unwrap().iter().map(id_of).collect();
            let listed: Vec<i64> = list.as_array().unwrap().iter().map(id_of).collect();
            assert_eq!(listed, ids, "{query}");
            for conversation in list.as_array().unwrap() {
                let path = format!("{CONVERSATIONS}/{}?message_limit={limit}", conversation["id"]);
                assert_eq!(app.get(&path).key(&key).send().await.body, *conversation, "{query}");
            }
        }
    }
    // Large pages have links like small ones.
    let first =
        app.get(&format!("{CONVERSATIONS}?limit=5&message_limit=1000")).key(&key).send().await;
    let next = app.get(&first.link("next").unwrap()).key(&key).send().await;
    assert_eq!((&next.body[0]["id"], next.body.as_array().unwrap().len()), (&json!(6), 5));
    assert_eq!(next.body[0]["messages"].as_array().unwrap().len(), 1000);
    // A user sees their own conversations, and no email of other users.
    let own =
        app.get(&format!("{CONVERSATIONS}?message_limit=1000")).session(&session).send().await;
    let own = own.expect(200);
    assert_eq!(own.as_array().unwrap().len(), 7, "{own}");
    assert!(own.to_string().contains("user150@example.com") || !own.to_string().contains('@'));
    let foreign = app.get(&format!("{CONVERSATIONS}/6")).session(&session).send().await;
    foreign.refused(404, "Conversation not found");
}

#[apply(on_both!)]
async fn participants_and_messages_have_16_mib_together(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    users(&backend, 1000).await;
    create_conversations(&backend, 300).await;
    backend.execute(format!("UPDATE users SET email = email || '{}'", "x".repeat(200))).await;
    backend
        .execute(
            "INSERT INTO participants (conversation_id, user_id) \
        SELECT c.id, u.id FROM conversations c CROSS JOIN users u",
        )
        .await;
    for id in [1, 299] {
        fill(&backend, id, 30, &"y".repeat(90_000)).await;
    }
    let path = format!("{CONVERSATIONS}?limit=300&message_limit=1000");
    let answer = app.get(&path).key(&key).send().await;
    assert!(answer.text.len() < CAP + 300 * 512, "{} bytes", answer.text.len());
    let list = answer.expect(200);
    assert_eq!(list.as_array().unwrap().len(), 300);
    for conversation in list.as_array().unwrap() {
        let shown = conversation["participants"].as_array().unwrap().len();
        assert_eq!(conversation["participant_count"], 1000);
        assert!(shown <= 100 && conversation["participants_truncated"] == true, "{shown}");
    }
    assert_eq!(list[0]["messages"].as_array().unwrap().len(), 30);
}

#[apply(on_both!)]
async fn a_conversation_shows_100_participants_and_the_route_has_all(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    users(&backend, 101).await;
    let ids: Vec<i64> = (1..=100).collect();
    let id = app.conversation(&key, &ids).await;
    let path = format!("{CONVERSATIONS}/{id}");
    let shown = app.get(&path).key(&key).send().await.expect(200);
    assert_eq!(shown["participants"].as_array().unwrap().len(), 100);
    let counted = |conversation: &Value| {
        (conversation["participant_count"].clone(), conversation["participants_truncated"].clone())
    };
    assert_eq!(counted(&shown), (json!(100), json!(false)));
    let participants = format!("{path}/participants");
    let more = app.post(&participants, json!({"user_id": 101})).key(&key).send().await.expect(201);
    assert_eq!(counted(&more), (json!(101), json!(true)));
    assert_eq!(more["participants"], shown["participants"]);
    // Pages in both orders.
    let first = app.get(&format!("{participants}?limit=100")).key(&key).send().await;
    assert_eq!(first.body, shown["participants"]);
    let next = app.get(&first.link("next").unwrap()).key(&key).send().await;
    assert_eq!(next.link("next"), None);
    let last = json!([{"id": 101, "username": "user101", "email": "user101@example.com"}]);
    assert_eq!(next.body, last);
    let newest = app.get(&format!("{participants}?order=desc&limit=1")).key(&key).send().await;
    assert_eq!(newest.body, last);
    // A user sees only their own email, and only conversations they participate in.
    let of_last = app.session_of(101).await;
    let seen =
        app.get(&format!("{participants}?skip=99")).session(&of_last).send().await.expect(200);
    assert_eq!(seen[0], json!({"id": 100, "username": "user100"}));
    assert_eq!(seen[1], last[0]);
    let other = app.conversation(&key, &[1]).await;
    let foreign = app.get(&format!("{CONVERSATIONS}/{other}/participants")).session(&of_last);
    foreign.send().await.refused(404, "Conversation not found");
}

#[apply(on_both!)]
async fn a_conversation_has_at_most_1000_participants(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    users(&backend, 1001).await;
    let ids: Vec<i64> = (1..=1000).collect();
    let id = app.conversation(&key, &ids[..999]).await;
    let path = format!("{CONVERSATIONS}/{id}/participants");
    let add = async |id: i64| app.post(&path, json!({"user_id": id})).key(&key).send().await;
    add(1000).await.expect(201);
    add(1001).await.refused(409, "The conversation has the maximum of 1000 participants");
    // Existing participants can be added again.
    assert_eq!(add(1000).await.expect(201)["participant_count"], 1000);
    let leave = format!("{path}/1");
    app.delete(&leave).key(&key).send().await.expect(200);
    add(1001).await.expect(201);
    // The limit also applies to ids and names together.
    let names: Vec<String> = (601..=1001).map(|n| format!("user{n}")).collect();
    let both = json!({"participant_ids": ids[..600], "participant_usernames": names});
    let answer = app.post(CONVERSATIONS, both).key(&key).send().await;
    answer.invalid(&["body.participant_usernames"]);
    let fitting = json!({"participant_ids": ids[..600], "participant_usernames": names[1..]});
    app.post(CONVERSATIONS, fitting).key(&key).send().await.expect(201);
}
