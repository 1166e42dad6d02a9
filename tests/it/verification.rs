//! Key verification for other services.

use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use serde_json::{Value, json};

const VERIFY: &str = "/api/v1/api-keys/verify";
const KEYS: &str = "/api/v1/api-keys";

async fn ask(app: &TestApp, caller: &str, question: Value) -> Value {
    app.post(VERIFY, question).key(caller).send().await.expect(200)
}

async fn make(app: &TestApp, admin: &str, body: Value) -> (String, i64) {
    let created = app.post(KEYS, body).key(admin).send().await.expect(201);
    (created["key"].as_str().unwrap().to_owned(), created["id"].as_i64().unwrap())
}

#[apply(on_both!)]
async fn a_valid_key_is_returned_with_its_permissions(backend: Backend) {
    let app = TestApp::with(&backend, &[]).await;
    let admin = app.admin().await;
    let (caller, _) = app.key(&admin, "keys:verify").await;
    let end = "2099-12-31T23:59:59.000000Z";
    let body = json!({"name": "shop", "scopes": "users:write,read", "expires_at": end,
        "rate_limit_per_minute": 60, "allowed_ips": "192.0.2.0/24"});
    let (key, id) = make(&app, &admin, body).await;
    let question = json!({"key": key, "scope": "conversations:read", "ip": "::ffff:192.0.2.7"});
    let expected = json!({"valid": true, "code": "VALID", "key_id": id, "name": "shop",
        "scopes": "read,users:write", "expires_at": end,
        "rate_limit": {"limit": 60, "remaining": 59, "reset": 1}});
    assert_eq!(ask(&app, &caller, question).await, expected);
    let answer = ask(&app, &caller, json!({"key": key, "ip": "192.0.2.8"})).await;
    assert_eq!(
        (&answer["code"], &answer["rate_limit"]["remaining"]),
        (&json!("VALID"), &json!(58))
    );
    // The first key is valid, too, and has the default limit.
    let answer = ask(&app, &caller, json!({"key": admin, "scope": null, "ip": null})).await;
    assert_eq!((&answer["code"], &answer["rate_limit"]["limit"]), (&json!("VALID"), &json!(6000)));
}

#[apply(on_both!)]
async fn the_code_says_why_a_key_is_invalid(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let end = app.state.clock.now() + TimeDelta::hours(1);
    let (off, off_id) = make(&app, &admin, json!({"name": "off"})).await;
    app.act(&format!("{KEYS}/{off_id}/deactivate")).key(&admin).send().await.expect(200);
    let (short, _) = make(&app, &admin, json!({"name": "short", "expires_at": end})).await;
    let (bound, _) =
        make(&app, &admin, json!({"name": "bound", "allowed_ips": "2001:db8::/32"})).await;
    let (broken, broken_id) = make(&app, &admin, json!({"name": "broken"})).await;
    let sql = format!("UPDATE api_keys SET allowed_ips = 'nonsense' WHERE id = {broken_id}");
    backend.execute(sql).await;
    let (rotated, rotated_id) = make(&app, &admin, json!({"name": "rotated"})).await;
    let rotation = json!({"grace_period_seconds": 60});
    app.post(&format!("{KEYS}/{rotated_id}/rotate"), rotation).key(&admin).send().await.expect(200);

    let code = async |question: Value| {
        let answer = ask(&app, &admin, question).await;
        assert_eq!(answer["valid"], answer["code"] == "VALID");
        assert_eq!(answer["rate_limit"], json!(null), "limits are off");
        (answer["code"].as_str().unwrap().to_owned(), answer["name"].clone())
    };
    let is = |code: &str, name: Value| (code.to_owned(), name);
    let unknown_key = "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMQ";
    for unknown in [unknown_key, "octopus_mistyped", &off[..56], "x"] {
        assert_eq!(code(json!({"key": unknown})).await, is("NOT_FOUND", json!(null)));
    }
    assert_eq!(code(json!({"key": off})).await, is("INACTIVE", json!("off")));
    assert_eq!(code(json!({"key": short})).await, is("VALID", json!("short")));
    assert_eq!(code(json!({"key": rotated})).await, is("VALID", json!("rotated")));
    for (ip, expected) in [
        (json!("192.0.2.1"), "IP_NOT_ALLOWED"),
        // Without an address, a key with an address list is not accepted.
        (json!(null), "IP_NOT_ALLOWED"),
        (json!("2001:db8::1"), "VALID"),
    ] {
        assert_eq!(code(json!({"key": bound, "ip": ip})).await, is(expected, json!("bound")));
    }
    assert_eq!(
        code(json!({"key": broken, "ip": "192.0.2.1"})).await,
        is("IP_NOT_ALLOWED", json!("broken"))
    );
    for (scope, expected) in
        [("write", "SCOPE_MISSING"), ("users:read", "VALID"), ("admin", "SCOPE_MISSING")]
    {
        assert_eq!(code(json!({"key": short, "scope": scope})).await, is(expected, json!("short")));
    }
    app.advance(TimeDelta::hours(2));
    assert_eq!(code(json!({"key": short})).await, is("EXPIRED", json!("short")));
    assert_eq!(code(json!({"key": rotated})).await, is("EXPIRED", json!("rotated")));
}

#[apply(on_both!)]
async fn a_verification_counts_as_a_use_and_against_the_limit_of_the_key(backend: Backend) {
    let app = TestApp::with(&backend, &[]).await;
    let admin = app.admin().await;
    let (key, id) = make(&app, &admin, json!({"name": "n", "rate_limit_per_minute": 2})).await;
    let question = || json!({"key": key, "scope": "users:read", "ip": "192.0.2.9"});
    assert_eq!(ask(&app, &admin, question()).await["rate_limit"]["remaining"], 1);
    app.get("/api/v1/users").key(&key).send().await.expect(200);
    let answer = ask(&app, &admin, question()).await;
    assert_eq!((&answer["valid"], &answer["code"]), (&json!(false), &json!("RATE_LIMITED")));
    let left = &answer["rate_limit"];
    assert_eq!((&left["limit"], &left["remaining"]), (&json!(2), &json!(0)));
    assert!((1..=30).contains(&left["reset"].as_i64().unwrap()), "{answer}");
    app.get("/api/v1/users").key(&key).send().await.expect(429);
    // A verification with a missing scope does not count against the limit.
    assert_eq!(
        ask(&app, &admin, json!({"key": key, "scope": "write"})).await["code"],
        "SCOPE_MISSING"
    );

    let usage = app.get(&format!("{KEYS}/{id}/usage")).key(&admin).send().await.expect(200);
    let total =
        json!({"ok": 2, "denied_scope": 1, "denied_address": 0, "rate_limited": 2, "expired": 0});
    assert_eq!(usage["total"], total);
    let shown = app.get(&format!("{KEYS}/{id}")).key(&admin).send().await.expect(200);
    assert_eq!(shown["last_used_ip"], json!(null), "the last verification named no address");
}

#[apply(on_both!)]
async fn an_invalid_verification_request_does_not_echo_the_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for (question, places) in [
        (json!({}), &["body.key"][..]),
        (json!({"key": ""}), &["body.key"]),
        (json!({"key": 7}), &["body.key"]),
        (json!({"key": "x".repeat(1001)}), &["body.key"]),
        (json!({"key": admin, "scope": "root"}), &["body.scope"]),
        (json!({"key": admin, "scope": "read,write"}), &["body.scope"]),
        (json!({"key": admin, "ip": "nowhere", "scope": ""}), &["body.ip", "body.scope"]),
        (json!({"key": admin, "ip": "10.0.0.0/8"}), &["body.ip"]),
        (json!({"key": admin, "surplus": admin}), &["body.surplus"]),
        // A key in the wrong field, whose error message quotes the value.
        (json!({"key": "x", "scope": admin}), &["body.scope"]),
    ] {
        let answer = app.post(VERIFY, question).key(&admin).send().await;
        assert!(!answer.text.contains(&admin), "{}", answer.text);
        answer.invalid(places);
    }
}

#[apply(on_both!)]
async fn verification_needs_the_keys_verify_scope_or_admin(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for (scopes, status) in [("keys:verify", 200), ("admin", 200), ("read,write,audit:read", 403)] {
        let (key, _) = app.key(&admin, scopes).await;
        let answer = app.post(VERIFY, json!({"key": admin})).key(&key).send().await;
        assert_eq!(answer.status, status, "{scopes}");
    }
}

#[apply(on_both!)]
async fn a_change_of_a_key_applies_to_the_next_verification(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for round in 0..50 {
        let (key, id) = make(&app, &admin, json!({"name": "n"})).await;
        let question = || json!({"key": key, "scope": "write"});
        assert_eq!(ask(&app, &admin, question()).await["code"], "SCOPE_MISSING");
        let path = format!("{KEYS}/{id}");
        app.patch(&path, json!({"scopes": "write"})).key(&admin).send().await.expect(200);
        assert_eq!(ask(&app, &admin, question()).await["code"], "VALID", "{round}");
        app.act(&format!("{path}/deactivate")).key(&admin).send().await.expect(200);
        assert_eq!(ask(&app, &admin, question()).await["code"], "INACTIVE", "{round}");
        app.delete(&path).key(&admin).send().await.expect(204);
        assert_eq!(ask(&app, &admin, question()).await["code"], "NOT_FOUND", "{round}");
    }
}
