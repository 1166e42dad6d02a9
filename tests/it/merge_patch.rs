//! PATCH of resources as JSON Merge Patch (RFC 7396): absent leaves a field, null clears it. PUT,
//! where null leaves it, follows the same rules otherwise.

use crate::support::{Answer, Backend, Call, TestApp};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

const MERGE_PATCH: &str = "application/merge-patch+json";
const CONVERSATION: &str = "/api/v1/conversations/1";
const USER: &str = "/api/v1/users/1";
const ME: &str = "/api/v1/users/me";
const KEY: &str = "/api/v1/api-keys/2";
const UPDATED: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM conversation_events \
    WHERE kind = 'conversation.updated'";

/// A server with a resource of each kind, and its callers.
struct Fixture {
    app: TestApp,
    admin: String,
    session: String,
}

impl Fixture {
    async fn new(backend: &Backend) -> Self {
        let app = TestApp::new(backend).await;
        let admin = app.admin().await;
        let id = app.user("ada").await;
        app.key(&admin, "read").await;
        app.conversation(&admin, &[id]).await;
        let session = app.login("ada").await;
        Self { app, admin, session }
    }

    fn call(&self, method: Method, path: &str) -> Call {
        let call = self.app.call(method, path);
        if path == ME { call.session(&self.session) } else { call.key(&self.admin) }
    }

    async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path).send().await.expect(200)
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path).json(body.clone()).send().await
    }

    async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PATCH, path).json(body.clone()).send().await
    }

    async fn merge(&self, path: &str, body: &Value) -> Answer {
        let call = self.call(Method::PATCH, path).header("Content-Type", MERGE_PATCH);
        call.json(body.clone()).send().await
    }
}

/// The path of a resource of the fixture.
fn filled(path: &str) -> &'static str {
    match path {
        "/api/v1/conversations/{conversation_id}" => CONVERSATION,
        "/api/v1/users/{user_id}" => USER,
        "/api/v1/users/me" => ME,
        "/api/v1/api-keys/{api_key_id}" => KEY,
        other => panic!("the tests have no resource for {other}"),
    }
}

/// A value of the field `name`, which may be null.
fn value(name: &str) -> Value {
    match name {
        "title" | "full_name" | "description" => json!("a text"),
        "metadata" => json!({"a": {"b": 1}}),
        "expires_at" => json!("2999-01-01T00:00:00.000000Z"),
        "allowed_ips" => json!("192.0.2.1"),
        "rate_limit_per_minute" => json!(1000),
        other => panic!("the tests have no value for {other}"),
    }
}

/// A field of a merge patch.
struct Field {
    path: &'static str,
    name: String,
    is_nullable: bool,
}

/// The fields of every merge patch in the OpenAPI document. Tags with a test target of their own
/// have their tests there.
fn fields() -> Vec<Field> {
    let document = serde_json::to_value(octopus::api::document()).unwrap();
    let mut fields = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        let patch = &item["patch"];
        let content = &patch["requestBody"]["content"];
        let tag = patch["tags"][0].as_str().unwrap_or_default().replace('-', "_");
        let target = format!("{}/tests/{tag}.rs", env!("CARGO_MANIFEST_DIR"));
        if !content[MERGE_PATCH].is_object() || std::path::Path::new(&target).exists() {
            continue;
        }
        assert_eq!(content[MERGE_PATCH]["schema"], content["application/json"]["schema"], "{path}");
        let schema = content[MERGE_PATCH]["schema"]["$ref"].as_str().unwrap();
        let schema = &document["components"]["schemas"][schema.rsplit('/').next().unwrap()];
        for (name, property) in schema["properties"].as_object().unwrap() {
            let types = property["type"].as_array();
            let is_nullable = types.is_some_and(|types| types.iter().any(|of| of == "null"));
            fields.push(Field { path: filled(path), name: name.clone(), is_nullable });
        }
    }
    let paths: BTreeSet<_> = fields.iter().map(|field| field.path).collect();
    assert_eq!(paths, BTreeSet::from([CONVERSATION, USER, ME, KEY]));
    let nullable = fields.iter().filter(|field| field.is_nullable).count();
    assert!(nullable >= 8 && fields.len() - nullable >= 10, "{nullable} of {}", fields.len());
    fields
}

#[apply(on_both!)]
async fn null_clears_every_field_that_may_be_null(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for Field { path, name, .. } in fields().into_iter().filter(|field| field.is_nullable) {
        let set = fixture.patch(path, &json!({&name: value(&name)})).await.expect(200);
        assert_eq!(set[&name], value(&name), "{path}");
        // An absent field stays as it is.
        let same = fixture.merge(path, &json!({})).await.expect(200);
        assert_eq!(same[&name], value(&name), "{path}");
        let cleared = fixture.merge(path, &json!({&name: null})).await.expect(200);
        assert_eq!(cleared[&name], Value::Null, "{path} {name}");
        assert_eq!(fixture.get(path).await[&name], Value::Null, "{path} {name}");
    }
}

#[apply(on_both!)]
async fn null_is_refused_for_every_other_field_and_changes_nothing(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for Field { path, name, .. } in fields().into_iter().filter(|field| !field.is_nullable) {
        let before = fixture.get(path).await;
        for answer in [
            fixture.patch(path, &json!({&name: null})).await,
            fixture.merge(path, &json!({&name: null})).await,
        ] {
            answer.invalid(&[&format!("body.{name}")]);
        }
        assert_eq!(fixture.get(path).await, before, "{path} {name}");
    }
    fixture.app.login("ada").await;
}

#[apply(on_both!)]
async fn a_patch_with_an_unknown_field_or_that_is_no_object_is_refused(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let paths: BTreeSet<_> = fields().into_iter().map(|field| field.path).collect();
    for path in paths {
        let before = fixture.get(path).await;
        fixture.merge(path, &json!({"nothing": 1})).await.invalid(&["body.nothing"]);
        for body in [json!(null), json!([]), json!("x"), json!(1), json!([{"title": "x"}])] {
            fixture.merge(path, &body).await.invalid(&["body"]);
        }
        for content_type in ["text/plain", "application/json-patch+json", "application/merge-patch"]
        {
            let call = fixture.call(Method::PATCH, path).header("Content-Type", content_type);
            call.json(json!({})).send().await.expect(415);
        }
        for content_type in ["Application/Merge-Patch+JSON; charset=utf-8", "application/json"] {
            let call = fixture.call(Method::PATCH, path).header("Content-Type", content_type);
            call.json(json!({})).send().await.expect(200);
        }
        let mut after = fixture.get(path).await;
        if before["updated_at"].is_string() {
            after["updated_at"] = before["updated_at"].clone();
        }
        assert_eq!(after, before, "{path}");
    }
}

#[apply(on_both!)]
async fn only_a_merge_patch_has_the_content_type_of_one(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let messages = format!("{CONVERSATION}/messages");
    let message = json!({"role": "user", "content": "x"});
    let created = fixture.call(Method::POST, &messages).json(message.clone()).send().await;
    let message_path = format!("{messages}/{}", created.expect(201)["id"]);
    for (method, path, body) in [
        (Method::PUT, CONVERSATION, json!({"title": "x"})),
        (Method::PUT, USER, json!({"full_name": "x"})),
        (Method::PUT, ME, json!({"full_name": "x"})),
        (Method::POST, &*messages, message),
        // It replaces `metadata`, where a merge patch would merge it.
        (Method::PATCH, &*message_path, json!({"content": "y"})),
    ] {
        let call = fixture.call(method, path).header("Content-Type", MERGE_PATCH);
        call.json(body).send().await.expect(415);
    }
}

#[apply(on_both!)]
async fn a_put_with_null_still_changes_nothing(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for Field { path, name, is_nullable } in fields() {
        if path == KEY || !is_nullable {
            continue;
        }
        fixture.put(path, &json!({&name: value(&name)})).await.expect(200);
        let kept = fixture.put(path, &json!({&name: null})).await.expect(200);
        assert_eq!(kept[&name], value(&name), "{path} {name}");
    }
}

#[apply(on_both!)]
async fn put_and_patch_refuse_the_same_values_with_the_same_words(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    fixture.app.user("ben").await;
    let (weaker, _) = fixture.app.key(&fixture.admin, "users:write").await;
    let long = "x".repeat(256);
    let mut compared = vec![];
    for (path, body) in [
        (CONVERSATION, json!({"title": long})),
        (CONVERSATION, json!({"metadata": []})),
        (CONVERSATION, json!({"title": "a\0b"})),
        ("/api/v1/conversations/99", json!({"title": "x"})),
        ("/api/v1/conversations/99", json!({"metadata": {"a": 1}})),
        (USER, json!({"full_name": long})),
        (USER, json!({"username": "a b"})),
        (USER, json!({"username": "ben"})),
        (USER, json!({"email": "nothing"})),
        (USER, json!({"email": "ben@example.com"})),
        (USER, json!({"password": "short"})),
        (USER, json!({"password": "iloveyou"})),
        ("/api/v1/users/99", json!({"full_name": "x"})),
        (ME, json!({"email": "ada@example.org"})),
        (ME, json!({"password": "another good password"})),
        (ME, json!({"password": "another good password", "current_password": "wrong"})),
        (ME, json!({"username": "BEN"})),
        (ME, json!({"full_name": long})),
    ] {
        let (put, patch) = (fixture.put(path, &body).await, fixture.patch(path, &body).await);
        compared.push((format!("{path} {body}"), put, patch));
    }
    for body in [
        json!({"email": "ada@example.org"}),
        json!({"password": "another good password"}),
        json!({"is_active": false}),
    ] {
        let put = fixture.app.put(USER, body.clone()).key(&weaker).send().await;
        let patch = fixture.app.patch(USER, body.clone()).key(&weaker).send().await;
        compared.push((format!("{USER} {body} with users:write"), put, patch));
    }
    for (place, put, patch) in compared {
        assert!((400..500).contains(&put.status), "{place}: {}", put.text);
        assert_eq!((put.status, put.text), (patch.status, patch.text), "{place}");
    }
}

#[apply(on_both!)]
async fn a_patch_of_a_user_has_the_audit_entries_and_effects_of_a_put(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    fixture.patch(USER, &json!({"full_name": "Ada"})).await.expect(200);
    fixture.merge(USER, &json!({"full_name": null})).await.expect(200);
    fixture.merge(USER, &json!({"full_name": null})).await.expect(200);
    let body =
        json!({"password": "another good password", "current_password": "correct horse battery"});
    fixture.patch(ME, &body).await.expect(200);
    let logs = "/api/v1/api-keys/audit-logs?action=update_user&limit=100";
    let logs = fixture.get(logs).await;
    let mut changed: Vec<_> =
        logs.as_array().unwrap().iter().map(|entry| entry["details"]["changed"].clone()).collect();
    changed.sort_by_key(ToString::to_string);
    // Clearing an empty field changes nothing.
    assert_eq!(changed, [json!(["full_name"]), json!(["full_name"]), json!(["password"])]);
    // Deactivation ends the sessions.
    fixture.patch(USER, &json!({"is_active": false})).await.expect(200);
    fixture.call(Method::GET, ME).send().await.expect(401);
}

#[apply(on_both!)]
async fn a_patch_of_a_conversation_is_an_event_if_it_changes_something(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for (body, events) in [
        (json!({}), 0),
        (json!({"title": "a talk"}), 0),
        (json!({"title": null}), 1),
        (json!({"title": null}), 1),
        (json!({"metadata": {"a": 1}}), 2),
        (json!({"metadata": {"a": 1, "b": null}}), 2),
        (json!({"title": "x", "metadata": null}), 3),
    ] {
        fixture.merge(CONVERSATION, &body).await.expect(200);
        assert_eq!(fixture.app.number(UPDATED).await, events, "{body}");
    }
}

#[apply(on_both!)]
async fn metadata_is_merged_entry_by_entry(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for (patch, expected) in [
        // Without stored metadata, null entries remove nothing and are not stored.
        (json!({"a": 1, "b": null}), json!({"a": 1})),
        (json!({"b": {"c": [1, null], "d": null}}), json!({"a": 1, "b": {"c": [1, null]}})),
        (json!({"b": {"e": "x"}}), json!({"a": 1, "b": {"c": [1, null], "e": "x"}})),
        (json!({"a": null, "b": {"c": null}}), json!({"b": {"e": "x"}})),
        (json!({"b": [2]}), json!({"b": [2]})),
        (json!({}), json!({"b": [2]})),
        (json!({"b": {}}), json!({"b": {}})),
        (json!(null), Value::Null),
        (json!({}), json!({})),
    ] {
        let body = json!({"metadata": patch});
        let answer = fixture.merge(CONVERSATION, &body).await.expect(200);
        assert_eq!(answer["metadata"], expected, "{body}");
        assert_eq!(fixture.get(CONVERSATION).await["metadata"], expected, "{body}");
    }
}

#[apply(on_both!)]
async fn merged_metadata_has_at_most_16_kib_and_more_changes_nothing(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let half = json!({"metadata": {"a": "x".repeat(9000)}});
    fixture.merge(CONVERSATION, &half).await.expect(200);
    let before = fixture.get(CONVERSATION).await;
    let other = json!({"title": "new", "metadata": {"b": "x".repeat(9000)}});
    fixture.merge(CONVERSATION, &other).await.invalid(&["body.metadata"]);
    assert_eq!(fixture.get(CONVERSATION).await, before);
    let instead = json!({"metadata": {"a": null, "b": "x".repeat(9000)}});
    let answer = fixture.merge(CONVERSATION, &instead).await.expect(200);
    assert_eq!(answer["metadata"], json!({"b": "x".repeat(9000)}));
}

#[apply(on_both!)]
async fn concurrent_patches_of_different_entries_are_all_kept(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let next = AtomicUsize::new(0);
    let call = || {
        let name = next.fetch_add(1, Ordering::Relaxed).to_string();
        fixture.call(Method::PATCH, CONVERSATION).json(json!({"metadata": {name: 1}}))
    };
    let answers = fixture.app.send_concurrently(16, call).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let stored = fixture.get(CONVERSATION).await;
    assert_eq!(stored["metadata"].as_object().unwrap().len(), 16, "{stored}");
}

#[apply(on_both!)]
async fn a_session_cannot_patch_a_conversation_or_a_user_by_id(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for path in [CONVERSATION, USER] {
        let patch = |call: Call| call.session(&fixture.session).json(json!({})).send();
        let put = patch(fixture.app.call(Method::PUT, path)).await;
        let patched = patch(fixture.app.call(Method::PATCH, path)).await;
        assert_eq!((patched.status, &patched.text), (403, &put.text));
    }
}
