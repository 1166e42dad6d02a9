//! Rotation of a key with a grace period, in which both the old and the new key work.

use crate::support::{Answer, Backend, TestApp};
use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

const KEYS: &str = "/api/v1/api-keys";
const USERS: &str = "/api/v1/users";
const ENDS: &str = "octopus-api-key-expires";
const INVALID: &str = "Invalid or inactive API Key";
const EXPIRED: &str = "API Key has expired";
const HOUR: i64 = 3600;

fn at(id: i64) -> String {
    format!("{KEYS}/{id}")
}

async fn rotate(app: &TestApp, key: &str, id: i64, grace: i64) -> Answer {
    let body = json!({"grace_period_seconds": grace});
    app.post(&format!("{}/rotate", at(id)), body).key(key).send().await
}

async fn get(app: &TestApp, key: &str, path: &str) -> Value {
    app.get(path).key(key).send().await.expect(200)
}

/// The status and the expiry field of a response to `key`.
async fn standing(app: &TestApp, key: &str) -> (u16, Option<String>) {
    let answer = app.get(USERS).key(key).send().await;
    (answer.status, answer.header(ENDS).map(str::to_owned))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The time in `by` from now, in the format of responses.
fn time(app: &TestApp, by: TimeDelta) -> String {
    (app.state.clock.now() + by).to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[apply(on_both!)]
async fn both_keys_work_until_the_grace_period_ends(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (old, id) = app.key(&admin, "read,write").await;
    assert_eq!(standing(&app, &old).await, (200, None));
    let earliest = time(&app, TimeDelta::seconds(HOUR));
    let new = rotate(&app, &admin, id, HOUR).await.expect(200);
    let latest = time(&app, TimeDelta::seconds(HOUR));
    let (secret, new_id) = (text(&new["key"]), new["id"].as_i64().unwrap());
    assert_eq!((&new["rotated_from_id"], &new["scopes"]), (&json!(id), &json!("read,write")));
    assert_eq!(
        (&new["rotated_to_id"], &new["grace_expires_at"], &new["expires_at"]),
        (&json!(null), &json!(null), &json!(null))
    );
    let shown = get(&app, &admin, &at(id)).await;
    assert_eq!((&shown["is_active"], &shown["rotated_to_id"]), (&json!(true), &json!(new_id)));
    assert_eq!((&shown["rotated_from_id"], &shown["expires_at"]), (&json!(null), &json!(null)));
    let end = text(&shown["grace_expires_at"]);
    assert!(earliest <= end && end <= latest, "{earliest} {end} {latest}");
    // From the first moment to the last, also with a cached key.
    for _ in 0..2 {
        assert_eq!(standing(&app, &old).await, (200, Some(end.clone())));
        assert_eq!(standing(&app, &secret).await, (200, None));
        let me = get(&app, &old, &format!("{KEYS}/me")).await;
        assert_eq!((&me["id"], &me["grace_expires_at"]), (&json!(id), &json!(end)));
        app.advance(TimeDelta::minutes(29));
    }
    app.advance(TimeDelta::minutes(2));
    app.get(USERS).key(&old).send().await.refused(401, EXPIRED);
    assert_eq!(standing(&app, &secret).await, (200, None));
}

#[apply(on_both!)]
async fn without_a_grace_period_the_old_key_stops_immediately(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for body in [None, Some(""), Some("{}"), Some(r#"{"grace_period_seconds": 0}"#)] {
        let (old, id) = app.key(&admin, "read").await;
        assert_eq!(standing(&app, &old).await, (200, None));
        let mut call = app.act(&format!("{}/rotate", at(id))).key(&admin);
        if let Some(body) = body {
            call = call.header("Content-Type", "application/json").body(body);
        }
        let new = call.send().await.expect(200);
        app.get(USERS).key(&old).send().await.refused(401, INVALID);
        let shown = get(&app, &admin, &at(id)).await;
        assert_eq!(
            (&shown["is_active"], &shown["grace_expires_at"], &shown["rotated_to_id"]),
            (&json!(false), &json!(null), &new["id"]),
            "{body:?}"
        );
    }
}

#[apply(on_both!)]
async fn a_grace_period_is_a_whole_number_of_seconds_up_to_a_week(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (old, id) = app.key(&admin, "read").await;
    let path = format!("{}/rotate", at(id));
    for wrong in [
        json!(-1),
        json!(604_801),
        json!(1.5),
        json!("x"),
        json!("60"),
        json!(null),
        json!(true),
        json!([]),
        json!(9_223_372_036_854_775_807_i64),
        json!(9_223_372_036_854_775_808_u64),
        json!(1e30),
    ] {
        let answer = app.post(&path, json!({"grace_period_seconds": wrong})).key(&admin);
        answer.send().await.invalid(&["body.grace_period_seconds"]);
    }
    let unknown = app.post(&path, json!({"grace_period_seconds": 1, "grace": 1})).key(&admin);
    unknown.send().await.invalid(&["body.grace"]);
    for wrong in ["[]", "1", "{", "grace_period_seconds=1"] {
        let call = app.act(&path).key(&admin).header("Content-Type", "application/json");
        call.body(wrong).send().await.invalid(&["body"]);
    }
    let form = app.act(&path).key(&admin).header("Content-Type", "text/plain").body("{}");
    form.send().await.expect(415);
    assert_eq!(standing(&app, &old).await, (200, None), "nothing of this changed anything");
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 2);
    rotate(&app, &admin, id, 604_800).await.expect(200);
    app.advance(TimeDelta::seconds(604_790));
    assert_eq!(standing(&app, &old).await.0, 200);
    app.advance(TimeDelta::seconds(10));
    app.get(USERS).key(&old).send().await.refused(401, EXPIRED);
}

#[apply(on_both!)]
async fn the_earlier_of_expiry_and_grace_period_applies(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for (own_hours, grace_hours) in [(1, 5), (5, 1)] {
        let own = time(&app, TimeDelta::hours(own_hours));
        let body = json!({"name": "n", "expires_at": own});
        let old = app.post(KEYS, body).key(&admin).send().await.expect(201);
        let (secret, id) = (text(&old["key"]), old["id"].as_i64().unwrap());
        let new = rotate(&app, &admin, id, grace_hours * HOUR).await.expect(200);
        let shown = get(&app, &admin, &at(id)).await;
        let grace = text(&shown["grace_expires_at"]);
        assert_eq!((&shown["expires_at"], &new["expires_at"]), (&json!(own), &json!(own)));
        let end = own.clone().min(grace);
        assert_eq!(standing(&app, &secret).await, (200, Some(end)));
        app.advance(TimeDelta::minutes(59));
        assert_eq!(standing(&app, &secret).await.0, 200);
        app.advance(TimeDelta::minutes(2));
        app.get(USERS).key(&secret).send().await.refused(401, EXPIRED);
        // The new key has only the expiry of the original key.
        let expected = if own_hours == 1 { 401 } else { 200 };
        assert_eq!(standing(&app, &text(&new["key"])).await, (expected, None));
    }
}

#[apply(on_both!)]
async fn a_key_in_its_grace_period_is_neither_rotated_nor_reactivated(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (old, id) = app.key(&admin, "admin").await;
    let new = rotate(&app, &admin, id, HOUR).await.expect(200);
    let before = get(&app, &admin, &at(id)).await;
    // Neither the key nor another admin key can do so.
    for key in [&admin, &old] {
        for grace in [0, HOUR] {
            rotate(&app, key, id, grace).await.expect(409);
        }
        for body in [
            json!({"is_active": true}),
            json!({"expires_at": null}),
            json!({"expires_at": "2099-01-01T00:00:00Z"}),
            json!({"name": "x", "is_active": true}),
        ] {
            app.patch(&at(id), body).key(key).send().await.expect(409);
        }
    }
    for field in ["grace_expires_at", "rotated_to_id", "rotated_at"] {
        let mut body = json!({});
        body[field] = json!(null);
        let place = format!("body.{field}");
        app.patch(&at(id), body).key(&admin).send().await.invalid(&[&place]);
    }
    let mut after = get(&app, &admin, &at(id)).await;
    for field in ["last_used_at", "last_used_ip"] {
        after[field] = before[field].clone();
    }
    assert_eq!(after, before);
    // The new key can be rotated, which leaves three working keys.
    let new_id = new["id"].as_i64().unwrap();
    let third = rotate(&app, &admin, new_id, HOUR).await.expect(200);
    for key in [&old, &text(&new["key"]), &text(&third["key"])] {
        assert_eq!(standing(&app, key).await.0, 200);
    }
    // Not even after its successor is deleted.
    app.delete(&at(new_id)).key(&admin).send().await.expect(204);
    rotate(&app, &admin, id, HOUR).await.expect(409);
    let shown = get(&app, &admin, &at(id)).await;
    assert_eq!((&shown["rotated_to_id"], &shown["is_active"]), (&json!(null), &json!(true)));
    let third = get(&app, &admin, &at(third["id"].as_i64().unwrap())).await;
    assert_eq!(third["rotated_from_id"], json!(null));
}

#[apply(on_both!)]
async fn a_key_in_its_grace_period_can_be_deactivated_and_deleted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for operation in ["deactivate", "patch", "delete"] {
        let (old, id) = app.key(&admin, "read").await;
        let new = rotate(&app, &admin, id, HOUR).await.expect(200);
        assert_eq!(standing(&app, &old).await.0, 200);
        let call = match operation {
            "deactivate" => app.act(&format!("{}/deactivate", at(id))),
            "patch" => app.patch(&at(id), json!({"is_active": false})),
            _ => app.delete(&at(id)),
        };
        let status = call.key(&admin).send().await.status;
        assert!([200, 204].contains(&status), "{operation}: {status}");
        app.get(USERS).key(&old).send().await.refused(401, INVALID);
        assert_eq!(standing(&app, &text(&new["key"])).await, (200, None));
        if operation != "delete" {
            app.patch(&at(id), json!({"is_active": true})).key(&admin).send().await.expect(409);
        }
    }
}

#[apply(on_both!)]
async fn a_key_after_its_grace_period_is_refused_as_expired_and_cleaned_up(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (old, id) = app.key(&admin, "read").await;
    let new = rotate(&app, &admin, id, HOUR).await.expect(200);
    let end = get(&app, &admin, &at(id)).await["grace_expires_at"].clone();
    let clean_up = async || {
        let call = app.act(&format!("{KEYS}/cleanup-expired")).key(&admin);
        call.send().await.expect(200)["deactivated_count"].clone()
    };
    assert_eq!(clean_up().await, 0);
    app.advance(TimeDelta::seconds(HOUR));
    app.get(USERS).key(&old).send().await.refused(401, EXPIRED);
    assert_eq!(clean_up().await, 1);
    assert_eq!(clean_up().await, 0);
    app.get(USERS).key(&old).send().await.refused(401, EXPIRED);
    assert_eq!(get(&app, &admin, &at(id)).await["is_active"], false);
    let logs = get(&app, &admin, &format!("{KEYS}/audit-logs?action=expire")).await;
    assert_eq!((logs.as_array().unwrap().len(), &logs[0]["api_key_id"]), (1, &json!(id)));
    assert_eq!(logs[0]["details"]["expires_at"], end);
    for grace in [0, HOUR] {
        rotate(&app, &admin, id, grace).await.expect(409);
    }
    assert_eq!(standing(&app, &text(&new["key"])).await, (200, None));
}

#[apply(on_both!)]
async fn the_last_admin_key_can_rotate_itself_and_an_admin_key_is_left(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let old = app.admin().await;
    let new = rotate(&app, &old, 1, HOUR).await.expect(200);
    let (secret, id) = (text(&new["key"]), new["id"].as_i64().unwrap());
    // Both keys work, but the expiring one does not count as a permanent admin key.
    let last = "This is the last active admin key without an expiry: create another one first";
    let path = at(id);
    let deactivate = app.act(&format!("{path}/deactivate")).key(&old);
    deactivate.send().await.refused(409, last);
    app.delete(&path).key(&old).send().await.refused(409, last);
    for body in [
        json!({"is_active": false}),
        json!({"scopes": "read,write"}),
        json!({"expires_at": "2099-01-01T00:00:00Z"}),
    ] {
        app.patch(&path, body).key(&old).send().await.refused(409, last);
    }
    app.delete(&at(1)).key(&secret).send().await.expect(204);
    assert_eq!(get(&app, &secret, &format!("{KEYS}/me")).await["id"], id);
    app.get(KEYS).key(&old).send().await.refused(401, INVALID);
}

#[apply(on_both!)]
async fn a_key_in_its_grace_period_is_not_listed_as_expiring(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = json!({"name": "n", "expires_at": time(&app, TimeDelta::days(2))});
    let old = app.post(KEYS, body).key(&admin).send().await.expect(201);
    let path = format!("{KEYS}/expiring");
    assert_eq!(get(&app, &admin, &path).await[0]["id"], old["id"]);
    let (_, endless) = app.key(&admin, "read").await;
    rotate(&app, &admin, endless, HOUR).await.expect(200);
    let new = rotate(&app, &admin, old["id"].as_i64().unwrap(), HOUR).await.expect(200);
    let listed = get(&app, &admin, &path).await;
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &new["id"]));
}

#[apply(on_both!)]
async fn a_rotated_key_passes_on_its_limit_and_its_addresses(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = json!({"name": "n", "description": "d", "scopes": "read",
        "allowed_ips": "127.0.0.1,10.0.0.0/8", "rate_limit_per_minute": 7});
    let old = app.post(KEYS, body).key(&admin).send().await.expect(201);
    let new = rotate(&app, &admin, old["id"].as_i64().unwrap(), HOUR).await.expect(200);
    for field in
        ["name", "description", "scopes", "allowed_ips", "rate_limit_per_minute", "expires_at"]
    {
        assert_eq!(new[field], old[field], "{field}");
    }
    assert_eq!(new["rate_limit_per_minute"], 7);
}

#[apply(on_both!)]
async fn every_response_to_a_key_in_its_grace_period_shows_its_expiry(backend: Backend) {
    let variables = [("RATE_LIMIT_KEY_PER_MINUTE", "20")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let body = json!({"name": "n", "scopes": "write", "rate_limit_per_minute": 4});
    let old = app.post(KEYS, body).key(&admin).send().await.expect(201);
    let secret = text(&old["key"]);
    rotate(&app, &admin, old["id"].as_i64().unwrap(), HOUR).await.expect(200);
    let shown = get(&app, &admin, &at(old["id"].as_i64().unwrap())).await;
    let end = text(&shown["grace_expires_at"]);
    for (call, status) in [
        (app.get(&format!("{KEYS}/me")), 200),
        (app.get(KEYS), 403),
        (app.get("/api/v1/nowhere"), 404),
        (app.post("/api/v1/conversations", json!({"nonsense": 1})), 422),
        (app.get(USERS), 429),
    ] {
        let answer = call.key(&secret).send().await;
        assert_eq!((answer.status, answer.header(ENDS)), (status, Some(&*end)));
    }
}

#[apply(on_both!)]
async fn the_audit_log_records_a_rotation_with_a_grace_period(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let new = rotate(&app, &admin, id, HOUR).await.expect(200);
    let end = get(&app, &admin, &at(id)).await["grace_expires_at"].clone();
    let logs = get(&app, &admin, &format!("{KEYS}/audit-logs?limit=2")).await;
    assert_eq!((&logs[0]["action"], &logs[0]["api_key_id"]), (&json!("create"), &new["id"]));
    assert_eq!((&logs[1]["action"], &logs[1]["api_key_id"]), (&json!("rotate"), &json!(id)));
    let details = &logs[1]["details"];
    assert_eq!((&details["rotated_to_id"], &details["grace_expires_at"]), (&new["id"], &end));
}
