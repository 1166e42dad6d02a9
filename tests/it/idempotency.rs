//! `Idempotency-Key`: repeating the creation or rotation of a key has no effect and names the key
//! of the first request.

use crate::support::{Answer, Backend, Call, TestApp};
use chrono::TimeDelta;
use octopus::features::api_keys::service;
use serde_json::json;
use sha2::{Digest, Sha256};

const KEYS: &str = "/api/v1/api-keys";
const FIELD: &str = "Idempotency-Key";
/// Credential, method, path, key hash, body hash, and id of the created key.
type Row = (String, String, String, Vec<u8>, Vec<u8>, i64);

const ROWS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM idempotency_keys";
const API_KEYS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys";

fn create(app: &TestApp, admin: &str, idempotency_key: &str) -> Call {
    app.post(KEYS, json!({"name": "one"})).key(admin).header(FIELD, idempotency_key)
}

fn rotate(app: &TestApp, admin: &str, id: i64, idempotency_key: &str) -> Call {
    app.act(&format!("{KEYS}/{id}/rotate")).key(admin).header(FIELD, idempotency_key)
}

/// Asserts that `answer` is a 409 that names the key `id` of the first request.
#[track_caller]
fn already_created(answer: Answer, id: i64) {
    let detail = answer["detail"].as_str().unwrap_or_default().to_owned();
    assert!(answer.body["key"].is_null(), "{}", answer.text);
    answer.expect(409);
    let named = format!("This request already created API key {id}");
    assert!(detail.starts_with(&named), "{detail}");
}

#[apply(on_both!)]
async fn a_repeat_creates_nothing_and_names_the_created_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let logs = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_key_audit_logs";
    let created = create(&app, &admin, "a").send().await.expect(201);
    let before = (app.number(API_KEYS).await, app.number(logs).await, app.number(ROWS).await);
    for _ in 0..3 {
        already_created(create(&app, &admin, "a").send().await, created["id"].as_i64().unwrap());
    }
    let after = (app.number(API_KEYS).await, app.number(logs).await, app.number(ROWS).await);
    assert_eq!((before, before.0, before.2), (after, 2, 1));
    app.get(&format!("{KEYS}/me")).key(created["key"].as_str().unwrap()).send().await.expect(200);
    // A different idempotency key, or none, creates another key.
    create(&app, &admin, "b").send().await.expect(201);
    create(&app, &admin, "A").send().await.expect(201);
    for _ in 0..2 {
        app.post(KEYS, json!({"name": "one"})).key(&admin).send().await.expect(201);
    }
    assert_eq!((app.number(API_KEYS).await, app.number(ROWS).await), (6, 3));
}

#[apply(on_both!)]
async fn a_repeat_of_a_rotation_names_the_new_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (old, id) = app.key(&admin, "read").await;
    let body = json!({"grace_period_seconds": 60});
    let call = || app.post(&format!("{KEYS}/{id}/rotate"), body.clone()).header(FIELD, "a");
    let new = call().key(&admin).send().await.expect(200)["id"].as_i64().unwrap();
    for _ in 0..3 {
        already_created(call().key(&admin).send().await, new);
    }
    app.get(&format!("{KEYS}/me")).key(&old).send().await.expect(200);
    assert_eq!(app.number(API_KEYS).await, 3);
    // Also when a key rotates itself.
    let own = app.post(&format!("{KEYS}/1/rotate"), body).key(&admin).header(FIELD, "a");
    let own = own.send().await.expect(200)["id"].as_i64().unwrap();
    let repeat = app.post(&format!("{KEYS}/1/rotate"), json!({"grace_period_seconds": 60}));
    already_created(repeat.key(&admin).header(FIELD, "a").send().await, own);
}

#[apply(on_both!)]
async fn a_different_body_with_the_same_key_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let created = create(&app, &admin, "a").send().await.expect(201)["id"].as_i64().unwrap();
    for body in [json!({"name": "two"}), json!({"name": "one", "scopes": "read"})] {
        let other = app.post(KEYS, body).key(&admin).header(FIELD, "a");
        other.send().await.invalid(&["header.Idempotency-Key"]);
    }
    // An invalid body is reported first, and the record of the first request stays.
    let broken = app.post(KEYS, json!({"name": ""})).key(&admin).header(FIELD, "a");
    broken.send().await.invalid(&["body.name"]);
    already_created(create(&app, &admin, "a").send().await, created);
    let path = format!("{KEYS}/{id}/rotate");
    let hour = app.post(&path, json!({"grace_period_seconds": 3600})).key(&admin);
    hour.header(FIELD, "a").send().await.expect(200);
    let day = app.post(&path, json!({"grace_period_seconds": 86400})).key(&admin);
    day.header(FIELD, "a").send().await.invalid(&["header.Idempotency-Key"]);
}

#[apply(on_both!)]
async fn of_40_concurrent_requests_one_creates_a_key_and_the_others_name_it(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for round in 1..=3 {
        let idempotency_key = format!("round {round}").replace(' ', "-");
        let answers = app.send_concurrently(40, || create(&app, &admin, &idempotency_key)).await;
        let (created, repeats): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|a| a.status == 201);
        assert_eq!((created.len(), repeats.len()), (1, 39));
        let id = created[0]["id"].as_i64().unwrap();
        for answer in repeats {
            already_created(answer, id);
        }
        assert_eq!((app.number(API_KEYS).await, app.number(ROWS).await), (1 + round, round));
    }
}

#[apply(on_both!)]
async fn of_40_concurrent_rotations_one_succeeds_and_the_others_name_its_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let answers = app.send_concurrently(40, || rotate(&app, &admin, id, "a")).await;
    let (created, repeats): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
    assert_eq!((created.len(), repeats.len()), (1, 39));
    let new = created[0]["id"].as_i64().unwrap();
    for answer in repeats {
        already_created(answer, new);
    }
    assert_eq!(app.number(API_KEYS).await, 3);
}

#[apply(on_both!)]
async fn an_idempotency_record_expires_after_a_day(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let first = create(&app, &admin, "a").send().await.expect(201)["id"].as_i64().unwrap();
    app.advance(TimeDelta::hours(24) - TimeDelta::minutes(1));
    already_created(create(&app, &admin, "a").send().await, first);
    app.advance(TimeDelta::minutes(2));
    // The expired record may still exist, even with another body.
    let other = app.post(KEYS, json!({"name": "two"})).key(&admin).header(FIELD, "a");
    let second = other.send().await.expect(201)["id"].as_i64().unwrap();
    let repeat = app.post(KEYS, json!({"name": "two"})).key(&admin).header(FIELD, "a");
    already_created(repeat.send().await, second);
    create(&app, &admin, "a").send().await.invalid(&["header.Idempotency-Key"]);
    assert_eq!(app.number(ROWS).await, 1);
    let answers = {
        app.advance(TimeDelta::hours(25));
        app.send_concurrently(10, || create(&app, &admin, "a")).await
    };
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 409).count(), 9);
}

#[apply(on_both!)]
async fn idempotency_keys_are_scoped_to_the_caller_and_the_route(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (second, _) = app.key(&admin, "admin").await;
    let (_, one) = app.key(&admin, "read").await;
    let (_, two) = app.key(&admin, "read").await;
    create(&app, &admin, "a").send().await.expect(201);
    create(&app, &second, "a").send().await.expect(201);
    rotate(&app, &admin, one, "a").send().await.expect(200);
    rotate(&app, &admin, two, "a").send().await.expect(200);
    assert_eq!((app.number(API_KEYS).await, app.number(ROWS).await), (8, 4));
    // A rotation of the same key by another caller is not a repeat; it fails because the key was
    // rotated.
    let other = rotate(&app, &second, one, "a").send().await;
    assert!(!other.text.contains("before"), "{}", other.text);
    other.expect(409);
}

#[apply(on_both!)]
async fn a_trailing_slash_does_not_change_the_scope(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let created = create(&app, &admin, "a").send().await.expect(201)["id"].as_i64().unwrap();
    for path in ["/api/v1/api-keys/", "/api/v1/api-keys//", "/api/v1/api-keys?"] {
        let repeat = app.post(path, json!({"name": "one"})).key(&admin).header(FIELD, "a");
        already_created(repeat.send().await, created);
    }
}

#[apply(on_both!)]
async fn an_invalid_idempotency_key_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let place = ["header.Idempotency-Key"];
    let long = "x".repeat(256);
    let wrong: [&[u8]; 7] =
        [long.as_bytes(), b"a b", b"a\tb", "schl\u{fc}ssel".as_bytes(), b"\xff", b"", b" "];
    for text in wrong {
        let call = app.post(KEYS, json!({"name": "one"})).key(&admin).header(FIELD, text);
        call.send().await.invalid(&place);
        let call = app.act(&format!("{KEYS}/{id}/rotate")).key(&admin).header(FIELD, text);
        call.send().await.invalid(&place);
    }
    create(&app, &admin, "a").header(FIELD, "a").send().await.invalid(&place);
    create(&app, &admin, "a").header(FIELD, "b").send().await.invalid(&place);
    assert_eq!((app.number(API_KEYS).await, app.number(ROWS).await), (2, 0));
}

#[apply(on_both!)]
async fn a_valid_idempotency_key_is_accepted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (long, all) = ("x".repeat(255), ('!'..='~').collect::<String>());
    for text in ["x", &long, &all, "'; DROP TABLE api_keys; --".replace(' ', "_").as_str()] {
        let created = create(&app, &admin, text).send().await.expect(201)["id"].as_i64().unwrap();
        already_created(create(&app, &admin, text).send().await, created);
    }
    // Surrounding whitespace is not part of the value.
    let created = create(&app, &admin, "padded").send().await.expect(201)["id"].as_i64().unwrap();
    already_created(create(&app, &admin, "  padded ").send().await, created);
}

#[apply(on_both!)]
async fn a_failed_request_leaves_no_idempotency_record(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    app.post(KEYS, json!({})).key(&admin).header(FIELD, "a").send().await.invalid(&["body.name"]);
    rotate(&app, &admin, 999, "a").send().await.expect(404);
    app.act(&format!("{KEYS}/{id}/deactivate")).key(&admin).send().await.expect(200);
    rotate(&app, &admin, id, "a").send().await.expect(409);
    assert_eq!(app.number(ROWS).await, 0);
    create(&app, &admin, "a").send().await.expect(201);
    app.patch(&format!("{KEYS}/{id}"), json!({"is_active": true})).key(&admin).send().await;
    rotate(&app, &admin, id, "a").send().await.expect(200);
    assert_eq!(app.number(ROWS).await, 2);
    // One transaction: without the audit entry, neither the key nor the record is stored.
    let before = app.number(API_KEYS).await;
    backend.execute("ALTER TABLE api_key_audit_logs RENAME TO hidden").await;
    create(&app, &admin, "b").send().await.expect(500);
    rotate(&app, &admin, 1, "b").send().await.expect(500);
    backend.execute("ALTER TABLE hidden RENAME TO api_key_audit_logs").await;
    assert_eq!((app.number(API_KEYS).await, app.number(ROWS).await), (before, 2));
    create(&app, &admin, "b").send().await.expect(201);
}

#[apply(on_both!)]
async fn an_idempotency_record_holds_no_secret_and_no_body(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = r#"{"name":"the name that is sought"}"#;
    let call = app.act(KEYS).key(&admin).header(FIELD, "a").body(body);
    let created = call.send().await.expect(201);
    let rows: Vec<Row> = app
        .rows(
            "SELECT credential, method, path, idempotency_key, request_hash, resource_id \
             FROM idempotency_keys",
        )
        .await;
    let hash = Sha256::digest(body).to_vec();
    let created = created["id"].as_i64().unwrap();
    let [credential, method, path] = ["key:1", "POST", KEYS].map(str::to_owned);
    // Only a hash is stored, because some clients send a secret in this field.
    let idempotency_key = Sha256::digest("a").to_vec();
    assert_eq!(rows, [(credential, method, path, idempotency_key, hash, created)]);
}

#[apply(on_both!)]
async fn a_secret_in_the_wrong_field_is_not_echoed(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let long = format!("{} x{}", admin, "y".repeat(5000));
    for idempotency_key in [&admin, &long] {
        for name in ["a", "b"] {
            let call =
                app.post(KEYS, json!({"name": name})).key(&admin).header(FIELD, idempotency_key);
            let answer = call.send().await;
            let has_secret = answer.text.replace(r#""key":"octopus_"#, "").contains("octopus_");
            assert!(!has_secret && answer.text.len() < 2000, "{}", answer.text);
        }
    }
    let lists = json!({"name": "n", "scopes": admin, "allowed_ips": format!("10.0.0.1,{admin}")});
    let answer = app.post(KEYS, lists).key(&admin).send().await;
    assert!(answer.status == 422 && !answer.text.contains(&admin), "{}", answer.text);
}

#[apply(on_both!)]
async fn expired_idempotency_records_are_deleted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    create(&app, &admin, "a").send().await.expect(201);
    app.advance(TimeDelta::hours(13));
    let second = create(&app, &admin, "b").send().await.expect(201)["id"].as_i64().unwrap();
    service::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(ROWS).await, 2);
    app.advance(TimeDelta::hours(12));
    service::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(ROWS).await, 1);
    already_created(create(&app, &admin, "b").send().await, second);
    app.advance(TimeDelta::hours(12));
    service::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(ROWS).await, 0);
}

#[apply(on_both!)]
async fn a_caller_without_permission_learns_nothing_about_keys(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (second, id) = app.key(&admin, "admin").await;
    create(&app, &second, "a").send().await.expect(201);
    app.patch(&format!("{KEYS}/{id}"), json!({"scopes": "read"})).key(&admin).send().await;
    create(&app, &second, "a").send().await.expect(403);
    app.act(&format!("{KEYS}/{id}/deactivate")).key(&admin).send().await.expect(200);
    create(&app, &second, "a").send().await.expect(401);
    app.post(KEYS, json!({"name": "one"})).header(FIELD, "a").send().await.expect(401);
    // Other routes ignore the field.
    let call = app.get(&format!("{KEYS}/me")).key(&admin).header(FIELD, "a b");
    call.send().await.expect(200);
}
