//! `Idempotency-Key`: making or rotating a key again, with the same words, makes nothing.

use crate::support::{Answer, Backend, Call, TestApp, tests};
use chrono::TimeDelta;
use octopus::features::api_keys::service;
use serde_json::json;
use sha2::{Digest, Sha256};

tests!(on_both: [
    a_repeat_makes_nothing_and_names_what_was_made,
    a_repeat_of_a_rotation_names_the_new_key,
    another_body_is_not_a_repeat,
    of_40_at_once_one_makes_a_key_and_the_others_name_it,
    of_40_rotations_at_once_one_happens_and_the_others_name_its_key,
    a_day_later_it_is_new,
    others_and_other_routes_have_their_own,
    both_spellings_of_a_path_are_one,
    what_is_no_idempotency_key_is_refused,
    what_is_just_one_is_taken,
    a_request_that_failed_is_not_remembered,
    what_is_remembered_holds_no_secret_and_no_body,
    a_secret_in_the_wrong_field_is_not_sent_back,
    what_is_old_is_forgotten,
    who_may_not_make_keys_learns_nothing_of_them,
]);

const KEYS: &str = "/api/v1/api-keys";
const FIELD: &str = "Idempotency-Key";
/// Whose, how, where, which, of what and what it made.
type Row = (String, String, String, Vec<u8>, Vec<u8>, i64);

const ROWS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM idempotency_keys";
const MADE: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys";

fn create(app: &TestApp, admin: &str, once: &str) -> Call {
    app.post(KEYS, json!({"name": "one"})).key(admin).header(FIELD, once)
}

fn rotate(app: &TestApp, admin: &str, id: i64, once: &str) -> Call {
    app.act(&format!("{KEYS}/{id}/rotate")).key(admin).header(FIELD, once)
}

/// Asserts that `answer` says that key `id` was made before.
#[track_caller]
fn made_before(answer: Answer, id: i64) {
    let detail = answer["detail"].as_str().unwrap_or_default().to_owned();
    assert!(answer.body["key"].is_null(), "{}", answer.text);
    answer.expect(409);
    let named = format!("This request made API key {id} before");
    assert!(detail.starts_with(&named), "{detail}");
}

async fn a_repeat_makes_nothing_and_names_what_was_made(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let logs = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_key_audit_logs";
    let made = create(&app, &admin, "a").send().await.expect(201);
    let before = (app.number(MADE).await, app.number(logs).await, app.number(ROWS).await);
    for _ in 0..3 {
        made_before(create(&app, &admin, "a").send().await, made["id"].as_i64().unwrap());
    }
    let after = (app.number(MADE).await, app.number(logs).await, app.number(ROWS).await);
    assert_eq!((before, before.0, before.2), (after, 2, 1));
    app.get(&format!("{KEYS}/me")).key(made["key"].as_str().unwrap()).send().await.expect(200);
    // Another one, and none at all, make another key.
    create(&app, &admin, "b").send().await.expect(201);
    create(&app, &admin, "A").send().await.expect(201);
    for _ in 0..2 {
        app.post(KEYS, json!({"name": "one"})).key(&admin).send().await.expect(201);
    }
    assert_eq!((app.number(MADE).await, app.number(ROWS).await), (6, 3));
}

async fn a_repeat_of_a_rotation_names_the_new_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (old, id) = app.key(&admin, "read").await;
    let body = json!({"grace_period_seconds": 60});
    let call = || app.post(&format!("{KEYS}/{id}/rotate"), body.clone()).header(FIELD, "a");
    let new = call().key(&admin).send().await.expect(200)["id"].as_i64().unwrap();
    for _ in 0..3 {
        made_before(call().key(&admin).send().await, new);
    }
    app.get(&format!("{KEYS}/me")).key(&old).send().await.expect(200);
    assert_eq!(app.number(MADE).await, 3);
    // Also of one that takes the place of its own caller.
    let own = app.post(&format!("{KEYS}/1/rotate"), body).key(&admin).header(FIELD, "a");
    let own = own.send().await.expect(200)["id"].as_i64().unwrap();
    let again = app.post(&format!("{KEYS}/1/rotate"), json!({"grace_period_seconds": 60}));
    made_before(again.key(&admin).header(FIELD, "a").send().await, own);
}

async fn another_body_is_not_a_repeat(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let made = create(&app, &admin, "a").send().await.expect(201)["id"].as_i64().unwrap();
    for body in [json!({"name": "two"}), json!({"name": "one", "scopes": "read"})] {
        let other = app.post(KEYS, body).key(&admin).header(FIELD, "a");
        other.send().await.invalid(&["header.Idempotency-Key"]);
    }
    // What is wrong with the body comes first, and the first one is still known.
    let broken = app.post(KEYS, json!({"name": ""})).key(&admin).header(FIELD, "a");
    broken.send().await.invalid(&["body.name"]);
    made_before(create(&app, &admin, "a").send().await, made);
    let path = format!("{KEYS}/{id}/rotate");
    let hour = app.post(&path, json!({"grace_period_seconds": 3600})).key(&admin);
    hour.header(FIELD, "a").send().await.expect(200);
    let day = app.post(&path, json!({"grace_period_seconds": 86400})).key(&admin);
    day.header(FIELD, "a").send().await.invalid(&["header.Idempotency-Key"]);
}

async fn of_40_at_once_one_makes_a_key_and_the_others_name_it(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for round in 1..=3 {
        let once = format!("round {round}").replace(' ', "-");
        let answers = app.at_once(40, || create(&app, &admin, &once)).await;
        let (made, repeats): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 201);
        assert_eq!((made.len(), repeats.len()), (1, 39));
        let id = made[0]["id"].as_i64().unwrap();
        for answer in repeats {
            made_before(answer, id);
        }
        assert_eq!((app.number(MADE).await, app.number(ROWS).await), (1 + round, round));
    }
}

async fn of_40_rotations_at_once_one_happens_and_the_others_name_its_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let answers = app.at_once(40, || rotate(&app, &admin, id, "a")).await;
    let (made, repeats): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
    assert_eq!((made.len(), repeats.len()), (1, 39));
    let new = made[0]["id"].as_i64().unwrap();
    for answer in repeats {
        made_before(answer, new);
    }
    assert_eq!(app.number(MADE).await, 3);
}

async fn a_day_later_it_is_new(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let first = create(&app, &admin, "a").send().await.expect(201)["id"].as_i64().unwrap();
    app.advance(TimeDelta::hours(24) - TimeDelta::minutes(1));
    made_before(create(&app, &admin, "a").send().await, first);
    app.advance(TimeDelta::minutes(2));
    // The old row may still be there, with another body even.
    let other = app.post(KEYS, json!({"name": "two"})).key(&admin).header(FIELD, "a");
    let second = other.send().await.expect(201)["id"].as_i64().unwrap();
    let again = app.post(KEYS, json!({"name": "two"})).key(&admin).header(FIELD, "a");
    made_before(again.send().await, second);
    create(&app, &admin, "a").send().await.invalid(&["header.Idempotency-Key"]);
    assert_eq!(app.number(ROWS).await, 1);
    let answers = {
        app.advance(TimeDelta::hours(25));
        app.at_once(10, || create(&app, &admin, "a")).await
    };
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 409).count(), 9);
}

async fn others_and_other_routes_have_their_own(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (second, _) = app.key(&admin, "admin").await;
    let (_, one) = app.key(&admin, "read").await;
    let (_, two) = app.key(&admin, "read").await;
    create(&app, &admin, "a").send().await.expect(201);
    create(&app, &second, "a").send().await.expect(201);
    rotate(&app, &admin, one, "a").send().await.expect(200);
    rotate(&app, &admin, two, "a").send().await.expect(200);
    assert_eq!((app.number(MADE).await, app.number(ROWS).await), (8, 4));
    // Somebody else's rotation of a key that was rotated is no repeat, but fails all the same.
    let other = rotate(&app, &second, one, "a").send().await;
    assert!(!other.text.contains("before"), "{}", other.text);
    other.expect(409);
}

async fn both_spellings_of_a_path_are_one(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let made = create(&app, &admin, "a").send().await.expect(201)["id"].as_i64().unwrap();
    for path in ["/api/v1/api-keys/", "/api/v1/api-keys//", "/api/v1/api-keys?x=1"] {
        let again = app.post(path, json!({"name": "one"})).key(&admin).header(FIELD, "a");
        made_before(again.send().await, made);
    }
}

async fn what_is_no_idempotency_key_is_refused(backend: Backend) {
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
    assert_eq!((app.number(MADE).await, app.number(ROWS).await), (2, 0));
}

async fn what_is_just_one_is_taken(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (long, all) = ("x".repeat(255), ('!'..='~').collect::<String>());
    for text in ["x", &long, &all, "'; DROP TABLE api_keys; --".replace(' ', "_").as_str()] {
        let made = create(&app, &admin, text).send().await.expect(201)["id"].as_i64().unwrap();
        made_before(create(&app, &admin, text).send().await, made);
    }
    // Blanks around it are none of the value.
    let made = create(&app, &admin, "padded").send().await.expect(201)["id"].as_i64().unwrap();
    made_before(create(&app, &admin, "  padded ").send().await, made);
}

async fn a_request_that_failed_is_not_remembered(backend: Backend) {
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
    // One transaction: without its audit row, neither the key nor the memory of it is there.
    let before = app.number(MADE).await;
    backend.execute("ALTER TABLE api_key_audit_logs RENAME TO hidden").await;
    create(&app, &admin, "b").send().await.expect(500);
    rotate(&app, &admin, 1, "b").send().await.expect(500);
    backend.execute("ALTER TABLE hidden RENAME TO api_key_audit_logs").await;
    assert_eq!((app.number(MADE).await, app.number(ROWS).await), (before, 2));
    create(&app, &admin, "b").send().await.expect(201);
}

async fn what_is_remembered_holds_no_secret_and_no_body(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = r#"{"name":"the name that is sought"}"#;
    let call = app.act(KEYS).key(&admin).header(FIELD, "a").body(body);
    let made = call.send().await.expect(201);
    let rows: Vec<Row> = app
        .rows(
            "SELECT credential, method, path, idempotency_key, request_hash, resource_id \
             FROM idempotency_keys",
        )
        .await;
    let hash = Sha256::digest(body).to_vec();
    let made = made["id"].as_i64().unwrap();
    let [credential, method, path] = ["key:1", "POST", KEYS].map(str::to_owned);
    // Some clients take a secret for it.
    let once = Sha256::digest("a").to_vec();
    assert_eq!(rows, [(credential, method, path, once, hash, made)]);
}

async fn a_secret_in_the_wrong_field_is_not_sent_back(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let long = format!("{} x{}", admin, "y".repeat(5000));
    for once in [&admin, &long] {
        for name in ["a", "b"] {
            let call = app.post(KEYS, json!({"name": name})).key(&admin).header(FIELD, once);
            let answer = call.send().await;
            let has_secret = answer.text.replace(r#""key":"octopus_"#, "").contains("octopus_");
            assert!(!has_secret && answer.text.len() < 2000, "{}", answer.text);
        }
    }
    let lists = json!({"name": "n", "scopes": admin, "allowed_ips": format!("10.0.0.1,{admin}")});
    let answer = app.post(KEYS, lists).key(&admin).send().await;
    assert!(answer.status == 422 && !answer.text.contains(&admin), "{}", answer.text);
}

async fn what_is_old_is_forgotten(backend: Backend) {
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
    made_before(create(&app, &admin, "b").send().await, second);
    app.advance(TimeDelta::hours(12));
    service::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(ROWS).await, 0);
}

async fn who_may_not_make_keys_learns_nothing_of_them(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (second, id) = app.key(&admin, "admin").await;
    create(&app, &second, "a").send().await.expect(201);
    app.patch(&format!("{KEYS}/{id}"), json!({"scopes": "read"})).key(&admin).send().await;
    create(&app, &second, "a").send().await.expect(403);
    app.act(&format!("{KEYS}/{id}/deactivate")).key(&admin).send().await.expect(200);
    create(&app, &second, "a").send().await.expect(401);
    app.post(KEYS, json!({"name": "one"})).header(FIELD, "a").send().await.expect(401);
    // Elsewhere it is no matter at all.
    let call = app.get(&format!("{KEYS}/me")).key(&admin).header(FIELD, "a b");
    call.send().await.expect(200);
}
