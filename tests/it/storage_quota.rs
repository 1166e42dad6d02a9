//! Storage quotas of signed-in users.

use crate::support::{Answer, Backend, Call, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

const CONVERSATIONS: &str = "/api/v1/conversations";

/// A server with these limits, an admin key, and a signed-in user.
struct Limited {
    app: TestApp,
    key: String,
    session: String,
    user: i64,
}

impl Limited {
    async fn to(backend: &Backend, limits: &[(&str, &str)]) -> Self {
        let variables = [&[("RATE_LIMIT_ENABLED", "false")], limits].concat();
        let app = TestApp::with(backend, &variables).await;
        let key = app.admin().await;
        let user = app.user("ada").await;
        let session = app.session_of(user).await;
        Self { app, key, session, user }
    }

    fn call(&self, method: Method, path: &str, body: Value) -> Call {
        self.app.call(method, path).json(body).session(&self.session)
    }

    async fn create(&self, body: Value) -> Answer {
        self.call(Method::POST, CONVERSATIONS, body).send().await
    }

    async fn post_message(&self, id: &Value, bytes: usize) -> Answer {
        let body = json!({"role": "user", "content": "a".repeat(bytes)});
        self.call(Method::POST, &format!("{CONVERSATIONS}/{id}/messages"), body).send().await
    }
}

const FULL: &str = "Your storage quota of 1000 bytes is used up: delete some of your messages";

#[apply(on_both!)]
async fn the_conversation_quota_is_freed_by_deletions(backend: Backend) {
    let limited = Limited::to(&backend, &[("USER_MAX_CONVERSATIONS", "2")]).await;
    let first = limited.create(json!({})).await.expect(201)["id"].clone();
    limited.create(json!({})).await.expect(201);
    let refused = "Your storage quota of 2 conversations is used up";
    limited.create(json!({})).await.refused(403, refused);
    let own = limited.app.get(CONVERSATIONS).session(&limited.session).send().await.expect(200);
    assert_eq!(own.as_array().unwrap().len(), 2, "nothing is left of the third");
    // Conversations to which others added the user do not count, nor do their messages.
    limited.app.conversation(&limited.key, &[limited.user]).await;
    limited.post_message(&first, 10).await.expect(201);
    let path = format!("{CONVERSATIONS}/{first}");
    limited.app.delete(&path).key(&limited.key).send().await.expect(204);
    limited.create(json!({})).await.expect(201);
    limited.create(json!({})).await.refused(403, refused);
}

#[apply(on_both!)]
async fn the_byte_quota_is_freed_by_deletions(backend: Backend) {
    let limited = Limited::to(&backend, &[("USER_MAX_BYTES", "1000")]).await;
    let one = limited.create(json!({"title": "a".repeat(100)})).await.expect(201)["id"].clone();
    let two = limited.app.conversation(&limited.key, &[limited.user]).await.into();
    let message = limited.post_message(&one, 500).await.expect(201)["id"].clone();
    limited.post_message(&two, 401).await.refused(403, FULL);
    limited.post_message(&two, 400).await.expect(201);
    limited.post_message(&two, 1).await.refused(403, FULL);
    limited.create(json!({"title": "b"})).await.refused(403, FULL);
    let batch = json!({"messages": [{"role": "user", "content": "c"}]});
    let batch = limited.call(Method::POST, &format!("{CONVERSATIONS}/{one}/messages/batch"), batch);
    batch.send().await.refused(403, FULL);
    // A refused message uses no sequence number, and others can still post.
    let body = json!({"role": "assistant", "content": "d"});
    let by_key =
        limited.app.post(&format!("{CONVERSATIONS}/{two}/messages"), body).key(&limited.key);
    assert_eq!(by_key.send().await.expect(201)["seq"], 2);
    let path = format!("{CONVERSATIONS}/{one}/messages/{message}");
    limited.app.delete(&path).session(&limited.session).send().await.expect(204);
    limited.post_message(&two, 500).await.expect(201);
    limited.post_message(&two, 1).await.refused(403, FULL);
}

#[apply(on_both!)]
async fn edits_count_the_bytes_they_add(backend: Backend) {
    let limited = Limited::to(&backend, &[("USER_MAX_BYTES", "1000")]).await;
    let id = limited.create(json!({})).await.expect(201)["id"].clone();
    let message = limited.post_message(&id, 900).await.expect(201)["id"].clone();
    let path = format!("{CONVERSATIONS}/{id}/messages/{message}");
    let edit = async |body: Value| limited.call(Method::PATCH, &path, body).send().await;
    edit(json!({"content": "é".repeat(501)})).await.refused(403, FULL);
    edit(json!({"metadata": {"a": "a".repeat(100)}})).await.refused(403, FULL);
    edit(json!({"content": "é".repeat(500)})).await.expect(200);
    edit(json!({"content": "a", "metadata": {"a": "a".repeat(100)}})).await.expect(200);
    limited.post_message(&id, 891).await.expect(201);
    limited.post_message(&id, 1).await.refused(403, FULL);
    edit(json!({"metadata": null})).await.expect(200);
    limited.post_message(&id, 108).await.expect(201);
    limited.post_message(&id, 1).await.refused(403, FULL);
}

#[apply(on_both!)]
async fn keys_and_unlimited_users_have_no_quota(backend: Backend) {
    let limits = [("USER_MAX_BYTES", "10"), ("USER_MAX_CONVERSATIONS", "1")];
    let limited = Limited::to(&backend, &limits).await;
    for _ in 0..3 {
        let id = limited.app.conversation(&limited.key, &[limited.user]).await;
        let body = json!({"role": "user", "content": "a".repeat(100), "user_id": limited.user});
        let path = format!("{CONVERSATIONS}/{id}/messages");
        limited.app.post(&path, body).key(&limited.key).send().await.expect(201);
    }
    limited.app.stop().await.unwrap();
    let app = TestApp::new(&backend).await;
    let session = app.session_of(limited.user).await;
    for _ in 0..3 {
        app.post(CONVERSATIONS, json!({"title": "a".repeat(100)}))
            .session(&session)
            .send()
            .await
            .expect(201);
    }
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM user_storage").await, 0);
}
