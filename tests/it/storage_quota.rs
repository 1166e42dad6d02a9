//! What signed-in users may store, where the operator sets a limit.

use crate::support::{Answer, Backend, Call, TestApp, tests};
use reqwest::Method;
use serde_json::{Value, json};

tests!(on_both: [
    a_user_creates_so_many_conversations_and_more_when_some_are_deleted,
    a_user_writes_so_many_bytes_and_more_when_some_are_deleted,
    edits_count_what_they_add,
    keys_and_unlimited_users_have_no_quota,
]);

const TALKS: &str = "/api/v1/conversations";

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
        self.call(Method::POST, TALKS, body).send().await
    }

    async fn says(&self, id: &Value, bytes: usize) -> Answer {
        let body = json!({"role": "user", "content": "a".repeat(bytes)});
        self.call(Method::POST, &format!("{TALKS}/{id}/messages"), body).send().await
    }
}

const FULL: &str = "Your storage quota of 1000 bytes is used up: delete messages of yours";

async fn a_user_creates_so_many_conversations_and_more_when_some_are_deleted(backend: Backend) {
    let limited = Limited::to(&backend, &[("USER_MAX_CONVERSATIONS", "2")]).await;
    let first = limited.create(json!({})).await.expect(201)["id"].clone();
    limited.create(json!({})).await.expect(201);
    let refused = "Your storage quota of 2 conversations is used up";
    limited.create(json!({})).await.refused(403, refused);
    let own = limited.app.get(TALKS).session(&limited.session).send().await.expect(200);
    assert_eq!(own.as_array().unwrap().len(), 2, "nothing is left of the third");
    // Those that others add them to do not count, nor does what is said.
    limited.app.conversation(&limited.key, &[limited.user]).await;
    limited.says(&first, 10).await.expect(201);
    let path = format!("{TALKS}/{first}");
    limited.app.delete(&path).key(&limited.key).send().await.expect(204);
    limited.create(json!({})).await.expect(201);
    limited.create(json!({})).await.refused(403, refused);
}

async fn a_user_writes_so_many_bytes_and_more_when_some_are_deleted(backend: Backend) {
    let limited = Limited::to(&backend, &[("USER_MAX_BYTES", "1000")]).await;
    let one = limited.create(json!({"title": "a".repeat(100)})).await.expect(201)["id"].clone();
    let two = limited.app.conversation(&limited.key, &[limited.user]).await.into();
    let message = limited.says(&one, 500).await.expect(201)["id"].clone();
    limited.says(&two, 401).await.refused(403, FULL);
    limited.says(&two, 400).await.expect(201);
    limited.says(&two, 1).await.refused(403, FULL);
    limited.create(json!({"title": "b"})).await.refused(403, FULL);
    let batch = json!({"messages": [{"role": "user", "content": "c"}]});
    let batch = limited.call(Method::POST, &format!("{TALKS}/{one}/messages/batch"), batch);
    batch.send().await.refused(403, FULL);
    // What was refused wastes no number, and others may go on.
    let said = json!({"role": "assistant", "content": "d"});
    let said = limited.app.post(&format!("{TALKS}/{two}/messages"), said).key(&limited.key);
    assert_eq!(said.send().await.expect(201)["seq"], 2);
    let path = format!("{TALKS}/{one}/messages/{message}");
    limited.app.delete(&path).session(&limited.session).send().await.expect(204);
    limited.says(&two, 500).await.expect(201);
    limited.says(&two, 1).await.refused(403, FULL);
}

async fn edits_count_what_they_add(backend: Backend) {
    let limited = Limited::to(&backend, &[("USER_MAX_BYTES", "1000")]).await;
    let id = limited.create(json!({})).await.expect(201)["id"].clone();
    let message = limited.says(&id, 900).await.expect(201)["id"].clone();
    let path = format!("{TALKS}/{id}/messages/{message}");
    let edit = async |body: Value| limited.call(Method::PATCH, &path, body).send().await;
    edit(json!({"content": "é".repeat(501)})).await.refused(403, FULL);
    edit(json!({"metadata": {"a": "a".repeat(100)}})).await.refused(403, FULL);
    edit(json!({"content": "é".repeat(500)})).await.expect(200);
    edit(json!({"content": "a", "metadata": {"a": "a".repeat(100)}})).await.expect(200);
    limited.says(&id, 891).await.expect(201);
    limited.says(&id, 1).await.refused(403, FULL);
    edit(json!({"metadata": null})).await.expect(200);
    limited.says(&id, 108).await.expect(201);
    limited.says(&id, 1).await.refused(403, FULL);
}

async fn keys_and_unlimited_users_have_no_quota(backend: Backend) {
    let limits = [("USER_MAX_BYTES", "10"), ("USER_MAX_CONVERSATIONS", "1")];
    let limited = Limited::to(&backend, &limits).await;
    for _ in 0..3 {
        let id = limited.app.conversation(&limited.key, &[limited.user]).await;
        let body = json!({"role": "user", "content": "a".repeat(100), "user_id": limited.user});
        let path = format!("{TALKS}/{id}/messages");
        limited.app.post(&path, body).key(&limited.key).send().await.expect(201);
    }
    limited.app.stop().await.unwrap();
    let app = TestApp::new(&backend).await;
    let session = app.session_of(limited.user).await;
    for _ in 0..3 {
        app.post(TALKS, json!({"title": "a".repeat(100)}))
            .session(&session)
            .send()
            .await
            .expect(201);
    }
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM user_storage").await, 0);
}
