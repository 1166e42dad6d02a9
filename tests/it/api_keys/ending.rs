//! Deactivation, deletion, rotation and expiry of API keys, and the protection of the last admin
//! key.

use super::{KEYS, at, create, get, id, ids, keys_and_logs, time, without_secret};
use crate::support::{Answer, Backend, TestApp};
use chrono::TimeDelta;
use serde_json::{Value, json};
use std::time::Duration;

const LAST_ADMIN: &str =
    "This is the last active admin key without an expiry: create another one first";
const INVALID: &str = "Invalid or inactive API Key";

/// Asserts that exactly one status is 200 and that `others` contains all other statuses.
#[track_caller]
fn one_succeeds(answers: &[Answer], others: &[u16]) {
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|s| *s == 200 || others.contains(s)), "{statuses:?}");
}

async fn rotate(app: &TestApp, key: &str, id: i64) -> Answer {
    app.act(&format!("{}/rotate", at(id))).key(key).send().await
}

async fn deactivate(app: &TestApp, key: &str, id: i64) -> Answer {
    app.act(&format!("{}/deactivate", at(id))).key(key).send().await
}

async fn delete(app: &TestApp, key: &str, id: i64) -> Answer {
    app.delete(&at(id)).key(key).send().await
}

async fn patch(app: &TestApp, key: &str, id: i64, body: Value) -> Answer {
    app.patch(&at(id), body).key(key).send().await
}

#[apply(on_both!)]
async fn a_key_can_be_deactivated_and_reactivated(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, made) = app.key(&admin, "read").await;
    let mut off = get(&app, &admin, &at(made)).await;
    off["is_active"] = json!(false);
    for _ in 0..3 {
        assert_eq!(deactivate(&app, &admin, made).await.expect(200), off);
    }
    app.get("/api/v1/users").key(&key).send().await.refused(401, INVALID);
    // The repetitions changed nothing and have no audit entry.
    let path = format!("{KEYS}/audit-logs?api_key_id={made}&action=deactivate");
    assert_eq!(get(&app, &admin, &path).await.as_array().unwrap().len(), 1);

    patch(&app, &admin, made, json!({"is_active": true})).await.expect(200);
    app.get("/api/v1/users").key(&key).send().await.expect(200);
}

#[apply(on_both!)]
async fn a_key_cannot_deactivate_or_delete_itself(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.key(&admin, "admin").await;
    let before = keys_and_logs(&app).await;
    let off = "Cannot deactivate the API key you're currently using";
    deactivate(&app, &admin, 1).await.refused(400, off);
    patch(&app, &admin, 1, json!({"is_active": false})).await.refused(400, off);
    patch(&app, &admin, 1, json!({"name": "x", "is_active": false})).await.refused(400, off);
    let sentence = "Cannot delete the API key you're currently using";
    delete(&app, &admin, 1).await.refused(400, sentence);
    assert_eq!(keys_and_logs(&app).await, before);
    let me = get(&app, &admin, &format!("{KEYS}/me")).await;
    assert_eq!((&me["is_active"], &me["name"]), (&json!(true), &json!("Master API Key")));
}

#[apply(on_both!)]
async fn a_deleted_key_is_removed_and_its_audit_entries_are_kept(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, made) = app.key(&admin, "read").await;
    let deleted = delete(&app, &admin, made).await;
    assert_eq!((deleted.status, &*deleted.text), (204, ""));
    app.get("/api/v1/users").key(&key).send().await.refused(401, INVALID);
    app.get(&at(made)).key(&admin).send().await.refused(404, "API key not found");
    delete(&app, &admin, made).await.refused(404, "API key not found");
    let path = format!("{KEYS}?include_inactive=true");
    assert_eq!(ids(&get(&app, &admin, &path).await), [1]);

    let path = format!("{KEYS}/audit-logs?api_key_id={made}");
    let logs = get(&app, &admin, &path).await;
    let actions: Vec<_> = logs.as_array().unwrap().iter().map(|log| &log["action"]).collect();
    assert_eq!(actions, ["delete", "create"]);
    // The id is not assigned again, so no other key gets these audit entries.
    assert_eq!(app.key(&admin, "read").await.1, made + 1);
}

#[apply(on_both!)]
async fn a_rotated_key_stops_immediately_and_its_successor_has_its_properties(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = json!({"name": "n", "description": "d", "scopes": "read,write",
        "expires_at": "2099-01-01T00:00:00Z", "allowed_ips": "127.0.0.1,10.0.0.0/8"});
    let old = create(&app, &admin, body).await;
    let (old_secret, old_id) = (old["key"].as_str().unwrap(), id(&old));
    app.get("/api/v1/users").key(old_secret).send().await.expect(200);

    let answer = rotate(&app, &admin, old_id).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let new = answer.expect(200);
    app.get("/api/v1/users").key(old_secret).send().await.refused(401, INVALID);
    let secret = new["key"].as_str().unwrap();
    assert!(secret.len() == 57 && secret != old_secret);
    let mut expected = without_secret(old.clone());
    expected["id"] = json!(old_id + 1);
    expected["rotated_from_id"] = json!(old_id);
    expected["created_at"] = new["created_at"].clone();
    assert!(new["created_at"].as_str().unwrap() > old["created_at"].as_str().unwrap());
    assert_eq!(without_secret(new.clone()), expected);
    app.get("/api/v1/users").key(secret).send().await.expect(200);

    let old = get(&app, &admin, &at(old_id)).await;
    assert_eq!((&old["is_active"], &old["name"]), (&json!(false), &json!("n")));
    let logs = get(&app, &admin, &format!("{KEYS}/audit-logs?action=rotate")).await;
    assert_eq!((logs.as_array().unwrap().len(), &logs[0]["api_key_id"]), (1, &old["id"]));
    // The successor is rotated again and keeps the name.
    let third = rotate(&app, &admin, old_id + 1).await.expect(200);
    assert_eq!((&third["name"], &third["rotated_from_id"]), (&json!("n"), &new["id"]));
}

#[apply(on_both!)]
async fn a_key_may_rotate_itself(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    // The last admin key can be rotated, because its successor is an admin key.
    let new = rotate(&app, &admin, 1).await.expect(200);
    app.get(KEYS).key(&admin).send().await.refused(401, INVALID);
    let secret = new["key"].as_str().unwrap();
    assert_eq!(new["scopes"], "admin,read,write");
    assert_eq!(ids(&get(&app, secret, KEYS).await), [2]);
}

#[apply(on_both!)]
async fn an_ended_key_can_neither_be_rotated_nor_reactivated(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, inactive) = app.key(&admin, "read").await;
    deactivate(&app, &admin, inactive).await.expect(200);
    rotate(&app, &admin, inactive).await.expect(409);

    let (rotated_secret, rotated) = app.key(&admin, "read").await;
    rotate(&app, &admin, rotated).await.expect(200);
    let end = time(&app, TimeDelta::hours(1));
    let body = json!({"name": "short-lived", "expires_at": end});
    let expired = create(&app, &admin, body).await;
    let (expired_secret, expired) = (expired["key"].as_str().unwrap(), id(&expired));
    app.advance(TimeDelta::hours(2));

    let refuse = async || {
        for ended in [rotated, expired] {
            rotate(&app, &admin, ended).await.expect(409);
            for body in [
                json!({"is_active": true}),
                json!({"expires_at": null, "is_active": true}),
                json!({"expires_at": "2099-01-01T00:00:00Z", "is_active": true}),
            ] {
                patch(&app, &admin, ended, body).await.expect(409);
            }
            // Removing the expiry first does not help.
            patch(&app, &admin, ended, json!({"expires_at": null})).await;
            patch(&app, &admin, ended, json!({"is_active": true})).await.expect(409);
        }
        let detail = "API Key has expired";
        app.get("/api/v1/users").key(expired_secret).send().await.refused(401, detail);
        app.get("/api/v1/users").key(&rotated_secret).send().await.refused(401, INVALID);
    };
    refuse().await;
    app.act(&format!("{KEYS}/cleanup-expired")).key(&admin).send().await.expect(200);
    refuse().await;
    // Nor after its successor is deleted.
    delete(&app, &admin, rotated + 1).await.expect(204);
    refuse().await;
    patch(&app, &admin, rotated, json!({"name": "a better name"})).await.expect(200);
}

#[apply(on_both!)]
async fn a_rotation_with_an_unknown_field_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (old, id) = app.key(&admin, "read").await;
    let path = format!("/api/v1/api-keys/{id}/rotate");
    let asked = app.post(&path, json!({"grace_period": 60})).key(&admin).send().await;
    asked.invalid(&["body.grace_period"]);
    app.get("/api/v1/api-keys/me").key(&old).send().await.expect(200);
    // An empty body may have any content type.
    let form =
        app.act(&path).key(&admin).header("Content-Type", "application/x-www-form-urlencoded");
    form.send().await.expect(200);
}

#[apply(on_both!)]
async fn of_64_concurrent_rotations_exactly_one_succeeds(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, made) = app.key(&admin, "read").await;
    let path = format!("{}/rotate", at(made));
    one_succeeds(&app.send_concurrently(64, || app.act(&path).key(&admin)).await, &[409]);
    assert_eq!(ids(&get(&app, &admin, KEYS).await), [1, made + 1]);
}

#[apply(on_both!)]
async fn of_64_concurrent_rotations_of_a_key_by_itself_exactly_one_succeeds(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let path = format!("{}/rotate", at(1));
    let answers = app.send_concurrently(64, || app.act(&path).key(&admin)).await;
    one_succeeds(&answers, &[401, 409]);
    let winner = answers.iter().find(|answer| answer.status == 200).unwrap();
    assert_eq!(ids(&get(&app, winner["key"].as_str().unwrap(), KEYS).await), [2]);
}

#[apply(on_both!)]
async fn the_last_usable_admin_key_cannot_be_ended(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let end = json!({"expires_at": "2099-01-01T00:00:00Z"});
    // A key with an expiry, an inactive key, and a key without the scope do not count.
    let mut body = json!({"name": "for a time", "scopes": "admin"});
    body["expires_at"] = end["expires_at"].clone();
    let created = create(&app, &admin, body).await;
    let (temporary, temporary_id) = (created["key"].as_str().unwrap(), id(&created));
    let (_, off) = app.key(&admin, "admin").await;
    deactivate(&app, &admin, off).await.expect(200);
    app.key(&admin, "read,write").await;

    let before = (keys_and_logs(&app).await, get(&app, &admin, &at(1)).await["scopes"].clone());
    deactivate(&app, temporary, 1).await.refused(409, LAST_ADMIN);
    delete(&app, temporary, 1).await.refused(409, LAST_ADMIN);
    for key in [&admin, temporary] {
        patch(&app, key, 1, json!({"scopes": "read,write"})).await.refused(409, LAST_ADMIN);
        patch(&app, key, 1, end.clone()).await.refused(409, LAST_ADMIN);
    }
    patch(&app, temporary, 1, json!({"is_active": false})).await.refused(409, LAST_ADMIN);
    let after = (keys_and_logs(&app).await, get(&app, &admin, &at(1)).await["scopes"].clone());
    assert_eq!(after, before);
    // Changes that do not end the last admin key succeed.
    patch(&app, &admin, 1, json!({"scopes": "admin", "expires_at": null})).await.expect(200);
    delete(&app, &admin, off).await.expect(204);
    delete(&app, &admin, temporary_id).await.expect(204);

    // With a second admin key, each operation is allowed on the first.
    for operation in ["deactivate", "delete", "demote", "end"] {
        let (second, second_id) = app.key(&admin, "admin").await;
        let (third, third_id) = app.key(&admin, "admin").await;
        match operation {
            "deactivate" => deactivate(&app, &second, third_id).await.expect(200),
            "delete" => delete(&app, &second, third_id).await.expect(204),
            "demote" => patch(&app, &third, third_id, json!({"scopes": "read"})).await.expect(200),
            _ => patch(&app, &third, third_id, end.clone()).await.expect(200),
        };
        delete(&app, &admin, second_id).await.expect(204);
    }
    patch(&app, &admin, 1, end).await.refused(409, LAST_ADMIN);
}

#[apply(on_both!)]
async fn of_two_admin_keys_that_deactivate_each_other_one_stays_active(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let (mut one, mut one_id) = (app.admin().await, 1);
    for round in 0..12 {
        let (other, other_id) = app.key(&one, "admin").await;
        let call = |key: &str, id: i64| match round % 3 {
            0 => app.act(&format!("{}/deactivate", at(id))).key(key),
            1 => app.delete(&at(id)).key(key),
            _ => app.patch(&at(id), json!({"scopes": "read"})).key(key),
        };
        let (first, second) =
            tokio::join!(call(&one, other_id).send(), call(&other, one_id).send());
        let won = |answer: &Answer| [200, 204].contains(&answer.status);
        assert!(won(&first) != won(&second), "{first:?} {second:?}");
        let lost = if won(&first) { &second } else { &first };
        assert!([401, 403, 409].contains(&lost.status), "{lost:?}");
        if won(&second) {
            (one, one_id) = (other, other_id);
        }
        assert_eq!(get(&app, &one, &format!("{KEYS}/me")).await["id"], one_id);
    }
}

#[apply(on_both!)]
async fn keys_that_expire_soon_are_listed_soonest_first(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let mut made = vec![];
    for days in [6, 2, 8, 4, 3649] {
        let end = time(&app, TimeDelta::days(days));
        made.push(id(&create(&app, &admin, json!({"name": "n", "expires_at": end})).await));
    }
    let [six, two, eight, four, years] = made[..] else { unreachable!() };
    let check = async |query: &str, expected: &[i64]| {
        let keys = get(&app, &admin, &format!("{KEYS}/expiring/{query}")).await;
        assert_eq!(ids(&keys), expected, "{query}");
    };
    check("", &[two, four, six]).await;
    check("?days=7", &[two, four, six]).await;
    check("?days=3", &[two]).await;
    check("?days=1", &[]).await;
    check("?days=3650", &[two, four, six, eight, years]).await;
    check("?skip=1&limit=1", &[four]).await;
    for days in ["0", "3651", "-1", "x"] {
        let answer = app.get(&format!("{KEYS}/expiring?days={days}")).key(&admin).send().await;
        answer.invalid(&["query.days"]);
    }
    // Inactive and expired keys are not listed.
    deactivate(&app, &admin, four).await.expect(200);
    app.advance(TimeDelta::days(3));
    check("", &[six, eight]).await;
}

#[apply(on_both!)]
async fn expired_keys_are_deactivated_on_request(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let clean_up = async || app.act(&format!("{KEYS}/cleanup-expired/")).key(&admin).send().await;
    let none = json!({"deactivated_count": 0, "message": "Deactivated 0 expired key(s)"});
    assert_eq!(clean_up().await.expect(200), none);
    for (name, hours) in [("a", 1), ("b", 2), ("c", 3)] {
        let end = time(&app, TimeDelta::hours(hours));
        create(&app, &admin, json!({"name": name, "expires_at": end})).await;
    }
    app.advance(TimeDelta::minutes(150));
    let two = json!({"deactivated_count": 2, "message": "Deactivated 2 expired key(s)"});
    assert_eq!(clean_up().await.expect(200), two);
    assert_eq!(clean_up().await.expect(200), none);
    assert_eq!(ids(&get(&app, &admin, KEYS).await), [1, 4]);
    let logs = get(&app, &admin, &format!("{KEYS}/audit-logs?action=expire")).await;
    let logs = logs.as_array().unwrap();
    let mut of: Vec<_> = logs.iter().map(|log| log["api_key_id"].as_i64().unwrap()).collect();
    of.sort_unstable();
    assert_eq!(of, [2, 3]);
    assert!(logs.iter().all(|log| log["performed_by_key_id"] == 1));
}

#[apply(on_both!)]
async fn expired_keys_are_deactivated_by_a_background_job(backend: Backend) {
    let app = TestApp::with(&backend, &[("CLEANUP_INTERVAL_SECONDS", "1")]).await;
    let admin = app.admin().await;
    let end = time(&app, TimeDelta::hours(1));
    let made = id(&create(&app, &admin, json!({"name": "n", "expires_at": end})).await);
    app.advance(TimeDelta::hours(2));
    for _ in 0..100 {
        if get(&app, &admin, &at(made)).await["is_active"] == false {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ids(&get(&app, &admin, KEYS).await), [1]);
    let logs = get(&app, &admin, &format!("{KEYS}/audit-logs?action=expire")).await;
    assert_eq!((logs.as_array().unwrap().len(), &logs[0]["api_key_id"]), (1, &json!(made)));
    assert_eq!(logs[0]["performed_by_key_id"], json!(null));
    assert_eq!(logs[0]["performed_by_ip"], json!(null));
}
