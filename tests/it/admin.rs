//! Administration: statistics of the whole installation.

use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use serde_json::json;

const STATS: &str = "/api/v1/admin/stats";

#[apply(on_both!)]
async fn an_admin_key_gets_schwifty(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for path in ["/api/v1/admin/", "/api/v1/admin"] {
        let answer = app.act(path).key(&admin).send().await.expect(200);
        assert_eq!(answer, json!({"message": "Admin getting schwifty"}));
    }
}

#[apply(on_both!)]
async fn the_statistics_count_all_rows(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let counts = async || app.get(STATS).key(&admin).send().await.expect(200)["counts"].clone();
    let mut expected = json!({
        "api_keys": 1, "active_api_keys": 1, "users": 0, "conversations": 0, "messages": 0,
        "items": 2, "audit_logs": 1,
    });
    // A project without the demo feature `items` has no count of items.
    if counts().await["items"].is_null() {
        expected.as_object_mut().unwrap().remove("items");
    }
    assert_eq!(counts().await, expected);

    let (_, key) = app.key(&admin, "read").await;
    app.act(&format!("/api/v1/api-keys/{key}/deactivate")).key(&admin).send().await.expect(200);
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let mut conversations = vec![];
    for _ in 0..2 {
        let conversation =
            format!("/api/v1/conversations/{}", app.conversation(&admin, &[bob]).await);
        for user_id in [Some(bob), None, None] {
            let body = json!({"role": "user", "content": "hello", "user_id": user_id});
            app.post(&format!("{conversation}/messages"), body)
                .key(&admin)
                .send()
                .await
                .expect(201);
        }
        conversations.push(conversation);
    }
    for (name, count) in
        [("api_keys", 2), ("users", 2), ("conversations", 2), ("messages", 6), ("audit_logs", 3)]
    {
        expected[name] = json!(count);
    }
    assert_eq!(counts().await, expected);

    app.delete(&conversations[0]).key(&admin).send().await.expect(204);
    for user in [alice, bob] {
        app.delete(&format!("/api/v1/users/{user}")).key(&admin).send().await.expect(204);
    }
    for (name, count) in [("users", 0), ("conversations", 1), ("messages", 3), ("audit_logs", 6)] {
        expected[name] = json!(count);
    }
    assert_eq!(counts().await, expected);
}

#[apply(on_both!)]
async fn the_statistics_name_the_database_and_the_version(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.advance(TimeDelta::hours(1));
    let stats = app.get(STATS).key(&admin).send().await.expect(200);
    let kind = if backend.is_sqlite() { "sqlite" } else { "postgres" };
    assert_eq!(stats["database"]["kind"], kind);
    assert_eq!(stats["version"], env!("CARGO_PKG_VERSION"));
    let uptime = stats["uptime_seconds"].as_i64().unwrap();
    assert!((3600..3660).contains(&uptime), "{uptime}");
    let version = stats["database"]["version"].as_str().unwrap();
    let major = version.split('.').next().unwrap().parse::<u32>();
    assert!(major.is_ok_and(|major| major >= 3), "{version}");
    let bytes = stats["database"]["size_bytes"].as_u64().unwrap();
    assert!(bytes > 4096 && bytes < 1 << 30, "{bytes}");
    if backend.is_sqlite() {
        assert_eq!(bytes % 512, 0, "whole pages");
    }
}

#[apply(on_both!)]
async fn only_admin_keys_have_access(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (both, _) = app.key(&admin, "read,write").await;
    for call in [|app: &TestApp| app.get(STATS), |app: &TestApp| app.act("/api/v1/admin")] {
        call(&app)
            .send()
            .await
            .refused(401, "API key required: send it in the header field Octopus-API-Key");
        let refused = call(&app).key(&both).send().await;
        refused.refused(403, "Admin scope required to administer Octopus");
    }
}
