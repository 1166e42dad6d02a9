//! Permission to change keys is checked in the transaction of the change, so concurrent requests
//! cannot bypass it.

use crate::support::{Answer, Backend, Call, TestApp};
use chrono::TimeDelta;
use serde_json::json;
use tokio::task::JoinSet;

const KEYS: &str = "/api/v1/api-keys";
const USERS: &str = "/api/v1/users";
const LAST_ADMIN: &str =
    "This is the last active admin key without an expiry: create another one first";
const USABLE: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys WHERE is_active = TRUE \
    AND expires_at IS NULL AND grace_expires_at IS NULL AND scopes LIKE 'admin%'";

fn at(id: i64) -> String {
    format!("{KEYS}/{id}")
}

/// One of six ways to revoke or demote an admin key.
fn end(app: &TestApp, by: &str, id: i64, way: usize) -> Call {
    let call = match way % 6 {
        0 => app.act(&format!("{}/deactivate", at(id))),
        1 => app.delete(&at(id)),
        2 => app.patch(&at(id), json!({"scopes": "read"})),
        3 => app.patch(&at(id), json!({"expires_at": "2099-01-01T00:00:00Z"})),
        4 => app.patch(&at(id), json!({"is_active": false})),
        _ => app.patch(&at(id), json!({"scopes": "write", "name": "demoted"})),
    };
    call.key(by)
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

#[apply(on_both!)]
async fn of_64_concurrent_rotations_with_a_grace_period_one_succeeds(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for grace in [0, 3600] {
        let (_, id) = app.key(&admin, "read").await;
        let before = app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await;
        let body = json!({"grace_period_seconds": grace});
        let path = format!("{}/rotate", at(id));
        let answers = app.send_concurrently(64, || app.post(&path, body.clone()).key(&admin)).await;
        let won = answers.iter().filter(|answer| answer.status == 200).count();
        let lost = answers.iter().filter(|answer| answer.status == 409).count();
        assert_eq!((won, lost), (1, 63), "{:?}", statuses(&answers));
        let after = app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await;
        assert_eq!(after, before + 1);
    }
    // By the key itself, which stays valid: the other requests find it rotated.
    let body = json!({"grace_period_seconds": 3600});
    let path = format!("{}/rotate", at(1));
    let answers = app.send_concurrently(64, || app.post(&path, body.clone()).key(&admin)).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    let lost = answers.iter().filter(|answer| answer.status == 409).count();
    assert_eq!((won, lost), (1, 63), "{:?}", statuses(&answers));
    assert_eq!(app.number(USABLE).await, 1);
}

#[apply(on_both!)]
async fn when_admin_keys_revoke_each_other_one_is_always_left(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let (mut one, mut one_id) = (app.admin().await, 1);
    for round in 0..24 {
        // Two keys, or a ring of eight, each of which revokes the next.
        let mut ring = vec![(one.clone(), one_id)];
        for _ in 0..if round % 2 == 0 { 1 } else { 7 } {
            ring.push(app.key(&one, "admin").await);
        }
        let mut calls = JoinSet::new();
        for (n, (key, _)) in ring.iter().enumerate() {
            let victim = ring[(n + 1) % ring.len()].1;
            calls.spawn(end(&app, key, victim, round / 2 + n % 2 * round).send());
        }
        for answer in calls.join_all().await {
            let known = [200, 204, 401, 403, 404, 409].contains(&answer.status);
            assert!(known, "{} {}", answer.status, answer.text);
        }
        assert!(app.number(USABLE).await >= 1, "round {round}");
        let mut left = vec![];
        for (key, id) in ring {
            if app.get(KEYS).key(&key).send().await.status == 200 {
                let shown = app.get(&at(id)).key(&key).send().await.expect(200);
                left.extend(shown["expires_at"].is_null().then_some((key, id)));
            }
        }
        (one, one_id) = left.pop().expect("a usable admin");
        for (_, id) in left {
            app.delete(&at(id)).key(&one).send().await.expect(204);
        }
    }
}

#[apply(on_both!)]
async fn after_64_concurrent_demotions_one_admin_key_is_left(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let mut admins = vec![(admin.clone(), 1)];
    for _ in 1..64 {
        admins.push(app.key(&admin, "admin").await);
    }
    let mut calls = JoinSet::new();
    for (n, (key, id)) in admins.iter().enumerate() {
        // Each key demotes itself, which is allowed unless it is the last admin key.
        let body = if n % 2 == 0 {
            json!({"scopes": "read"})
        } else {
            json!({"expires_at": "2099-01-01T00:00:00Z"})
        };
        calls.spawn(app.patch(&at(*id), body).key(key).send());
    }
    let answers = calls.join_all().await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    let lost = answers.iter().filter(|answer| answer.status == 409).count();
    assert_eq!((won, lost), (63, 1), "{:?}", statuses(&answers));
    assert_eq!(app.number(USABLE).await, 1);
}

#[apply(on_both!)]
async fn the_last_admin_key_cannot_be_demoted_in_any_way(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let last = app.admin().await;
    // Neither of these is permanent: one has an expiry, the other is in its grace period.
    let body = json!({"name": "n", "scopes": "admin", "expires_at": "2099-01-01T00:00:00Z"});
    let ending = app.post(KEYS, body).key(&last).send().await.expect(201);
    let (overlapping, id) = app.key(&last, "admin").await;
    let grace = json!({"grace_period_seconds": 3600});
    let new = app.post(&format!("{}/rotate", at(id)), grace.clone()).key(&last);
    let new = new.send().await.expect(200)["id"].as_i64().unwrap();
    app.delete(&at(new)).key(&last).send().await.expect(204);
    for other in [ending["key"].as_str().unwrap(), &overlapping] {
        for way in 0..6 {
            end(&app, other, 1, way).send().await.refused(409, LAST_ADMIN);
        }
    }
    for way in [2, 3, 5] {
        end(&app, &last, 1, way).send().await.refused(409, LAST_ADMIN);
    }
    let answers = app.send_concurrently(64, || end(&app, &overlapping, 1, 0)).await;
    assert!(answers.iter().all(|answer| answer.status == 409), "{:?}", statuses(&answers));
    // After a rotation with a grace period, the successor is the last admin key.
    let rotated = app.post(&format!("{}/rotate", at(1)), grace).key(&last).send().await;
    let successor = rotated.expect(200)["id"].as_i64().unwrap();
    for way in 0..6 {
        end(&app, &last, successor, way).send().await.refused(409, LAST_ADMIN);
    }
    assert_eq!(app.number(USABLE).await, 1);
}

#[apply(on_both!)]
async fn an_admin_key_revoked_meanwhile_changes_nothing(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for way in 0..6 {
        let (caller, id) = app.key(&admin, "admin").await;
        app.get(USERS).key(&caller).send().await.expect(200);
        let before = app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await;
        let mut calls = JoinSet::new();
        for n in 0..32 {
            let body = json!({"name": format!("made by {id}, {n}")});
            calls.spawn(app.post(KEYS, body).key(&caller).send());
        }
        let ended = end(&app, &admin, id, way).send().await;
        assert!([200, 204].contains(&ended.status), "{}", ended.text);
        let deleted = i64::from(way % 6 == 1);
        let at_the_end =
            app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await + deleted;
        let answers = calls.join_all().await;
        let created = answers.iter().filter(|answer| answer.status == 201).count();
        if way % 6 != 3 {
            // 409: the scopes changed while the request arrived.
            let refused = answers.iter().all(|a| [201, 401, 403, 409].contains(&a.status));
            assert!(refused, "{:?}", statuses(&answers));
            let after = app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await + deleted;
            assert_eq!(after, before + i64::try_from(created).unwrap());
            // After the response to the revocation, the revoked key created nothing.
            assert_eq!(after, at_the_end, "created by a key that was revoked");
        }
    }
}

#[apply(on_both!)]
async fn an_admin_key_locked_out_meanwhile_changes_nothing(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = json!({"allowed_ips": "10.0.0.1"});
    for _ in 0..6 {
        let (caller, id) = app.key(&admin, "admin").await;
        app.get(USERS).key(&caller).send().await.expect(200);
        let mut calls = JoinSet::new();
        for n in 0..32 {
            let body = json!({"name": format!("made by {id}, {n}")});
            calls.spawn(app.post(KEYS, body).key(&caller).send());
        }
        app.patch(&at(id), body.clone()).key(&admin).send().await.expect(200);
        let at_the_end = app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await;
        let answers = calls.join_all().await;
        let refused = answers.iter().all(|a| [201, 401, 403].contains(&a.status));
        assert!(refused, "{:?}", statuses(&answers));
        let after = app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await;
        assert_eq!(after, at_the_end, "created by a key that was locked out");
    }
}

#[apply(on_both!)]
async fn every_change_of_a_caller_revoked_meanwhile_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let soon = (app.state.clock.now() + TimeDelta::hours(1)).to_rfc3339();
    let body = json!({"name": "n", "expires_at": soon});
    let expired = app.post(KEYS, body).key(&admin).send().await.expect(201);
    app.advance(TimeDelta::hours(2));
    let (_, target) = app.key(&admin, "read").await;
    let calls = |key: &str| {
        [
            app.post(KEYS, json!({"name": "n"})),
            app.patch(&at(target), json!({"name": "changed"})),
            app.act(&format!("{}/deactivate", at(target))),
            app.act(&format!("{}/rotate", at(target))),
            app.delete(&at(target)),
            app.act(&format!("{KEYS}/cleanup-expired")),
        ]
        .map(|call| call.key(key))
    };
    let (caller, id) = app.key(&admin, "admin").await;
    app.get(USERS).key(&caller).send().await.expect(200);
    // A transaction ahead of them revokes the caller after their authentication.
    let mut tx = app.state.db.begin().await.unwrap();
    let locked = "UPDATE installation SET version = version + 1 WHERE id = 1";
    octopus::db::query(&mut tx, locked).execute().await.unwrap();
    let mut waiting = JoinSet::new();
    for call in calls(&caller) {
        waiting.spawn(call.send());
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let off = "UPDATE api_keys SET is_active = FALSE WHERE id = $1";
    octopus::db::query(&mut tx, off).bind(id).execute().await.unwrap();
    tx.commit().await.unwrap();
    let answers = waiting.join_all().await;
    assert_eq!(statuses(&answers), [401; 6]);
    let shown = app.get(&at(target)).key(&admin).send().await.expect(200);
    assert_eq!((&shown["is_active"], &shown["name"]), (&json!(true), &json!("a key to read")));
    let path = at(expired["id"].as_i64().unwrap());
    let expired = app.get(&path).key(&admin).send().await.expect(200);
    assert_eq!(expired["is_active"], true, "a revoked key does not clean up, either");
}

#[apply(on_both!)]
async fn cleaning_up_and_writing_uses_do_not_deadlock(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for round in 0..12 {
        let soon = (app.state.clock.now() + TimeDelta::hours(1)).to_rfc3339();
        let mut created = vec![];
        for _ in 0..40 {
            let body = json!({"name": "n", "expires_at": soon});
            let key = app.post(KEYS, body).key(&admin).send().await.expect(201);
            created.push((key["key"].as_str().unwrap().to_owned(), key["id"].as_i64().unwrap()));
        }
        // Postgres moves a changed row to the end of the table file.
        for (_, id) in created.iter().rev() {
            let body = json!({"name": format!("changed in round {round}")});
            app.patch(&at(*id), body).key(&admin).send().await.expect(200);
        }
        for (key, _) in &created {
            app.get(USERS).key(key).send().await.expect(200);
        }
        app.advance(TimeDelta::hours(2));
        let clean_up = app.act(&format!("{KEYS}/cleanup-expired")).key(&admin).send();
        let (cleaned, flushed) = tokio::join!(clean_up, app.state.usage.flush(&app.state.db));
        flushed.expect("the uses are written");
        cleaned.expect(200);
    }
}

#[apply(on_both!)]
async fn deleting_and_writing_uses_do_not_deadlock(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for _ in 0..20 {
        let mut pairs = vec![];
        for _ in 0..4 {
            let (old, id) = app.key(&admin, "read").await;
            let body = json!({"grace_period_seconds": 3600});
            let new = app.post(&format!("{}/rotate", at(id)), body).key(&admin).send().await;
            let new = new.expect(200);
            app.get(USERS).key(&old).send().await.expect(200);
            app.get(USERS).key(new["key"].as_str().unwrap()).send().await.expect(200);
            pairs.push(new["id"].as_i64().unwrap());
        }
        let deleting = async {
            for id in pairs {
                app.delete(&at(id)).key(&admin).send().await.expect(204);
            }
        };
        let flushing = async {
            for _ in 0..4 {
                app.state.usage.flush(&app.state.db).await.expect("the uses are written");
            }
        };
        tokio::join!(deleting, flushing);
    }
}
