//! Usage statistics of API keys, and unused keys.

use crate::support::{Answer, Backend, TestApp};
use chrono::{DateTime, TimeDelta, Utc};
use octopus::features::api_keys::service;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

const KEYS: &str = "/api/v1/api-keys";

async fn report(app: &TestApp, admin: &str, id: i64, query: &str) -> Value {
    app.get(&format!("{KEYS}/{id}/usage{query}")).key(admin).send().await.expect(200)
}

fn counts(of: &Value) -> [i64; 5] {
    ["ok", "denied_scope", "denied_address", "rate_limited", "expired"]
        .map(|name| of[name].as_i64().unwrap())
}

#[apply(on_both!)]
async fn requests_are_counted_by_outcome(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_IP_PER_MINUTE", "1000")]).await;
    let admin = app.admin().await;
    let end = app.state.clock.now() + TimeDelta::minutes(30);
    let body =
        json!({"name": "n", "scopes": "users:read", "expires_at": end, "rate_limit_per_minute": 5});
    let created = app.post(KEYS, body).key(&admin).send().await.expect(201);
    let (key, id) = (created["key"].as_str().unwrap(), created["id"].as_i64().unwrap());
    assert_eq!(counts(&report(&app, &admin, id, "").await["total"]), [0; 5]);

    let statuses = async |path: &str, n: usize| {
        let mut statuses = vec![];
        for _ in 0..n {
            statuses.push(app.get(path).key(key).send().await.status);
        }
        statuses
    };
    assert_eq!(statuses("/api/v1/users", 2).await, [200, 200]);
    assert_eq!(statuses("/api/v1/users/999", 1).await, [404], "let through, and not found");
    assert_eq!(statuses("/api/v1/conversations", 2).await, [403, 403]);
    assert_eq!(statuses("/api/v1/users", 3).await, [429, 429, 429]);
    let patch = |list: Value| {
        let path = format!("{KEYS}/{id}");
        app.patch(&path, json!({"allowed_ips": list})).key(&admin).send()
    };
    patch(json!("192.0.2.1")).await.expect(200);
    assert_eq!(statuses("/api/v1/users", 4).await, [403; 4]);
    patch(json!(null)).await.expect(200);
    app.advance(TimeDelta::minutes(31));
    assert_eq!(statuses("/api/v1/users", 1).await, [401]);

    let usage = report(&app, &admin, id, "").await;
    assert_eq!(counts(&usage["total"]), [3, 2, 4, 3, 1], "{usage}");
    assert_eq!(usage["api_key_id"], id);
    assert_eq!(usage["granularity"], "day");
}

#[apply(on_both!)]
async fn uses_are_written_in_batches_and_reported_by_hour_or_day(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, id) = app.key(&admin, "read").await;
    // At noon, whatever the time of the test run, so that hours and days are predictable.
    let noon = (app.state.clock.now() + TimeDelta::days(1)).date_naive().and_hms_opt(12, 5, 0);
    let noon = noon.unwrap().and_utc();
    app.advance(noon - app.state.clock.now());
    for hours in [0, 1, 1, 24] {
        app.advance(TimeDelta::hours(hours));
        for _ in 0..2 {
            app.get("/api/v1/users").key(&key).send().await.expect(200);
            app.state.usage.flush(&app.state.db).await.unwrap();
        }
        app.get("/api/v1/users").key(&key).send().await.expect(200);
    }
    let start = |usage: &Value| usage["start"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let at = |hours: i64| {
        let hour = noon - TimeDelta::minutes(5);
        hour + TimeDelta::hours(hours)
    };
    let usage = report(&app, &admin, id, "?granularity=hour").await;
    let hours: Vec<_> = usage["buckets"].as_array().unwrap().iter().map(start).collect();
    assert_eq!(hours, [at(0), at(1), at(2), at(26)]);
    assert!(usage["buckets"].as_array().unwrap().iter().all(|b| b["ok"] == 3), "{usage}");
    let usage = report(&app, &admin, id, "?granularity=day").await;
    let days: Vec<_> =
        usage["buckets"].as_array().unwrap().iter().map(|b| (start(b), b["ok"].clone())).collect();
    assert_eq!(days, [(at(-12), json!(9)), (at(12), json!(3))]);
    assert_eq!(usage["total"]["ok"], 12);

    let format = |time: DateTime<Utc>| time.to_rfc3339().replace('+', "%2B");
    let query = format!("?granularity=hour&since={}&until={}", format(at(1)), format(at(2)));
    let usage = report(&app, &admin, id, &query).await;
    assert_eq!(
        (usage["total"]["ok"].as_i64(), usage["buckets"].as_array().unwrap().len()),
        (Some(3), 1)
    );
    // A start within an hour is rounded down to that hour.
    let inside = at(1) + TimeDelta::minutes(30);
    let query = format!("?granularity=hour&since={}&until={}", format(inside), format(at(2)));
    let usage = report(&app, &admin, id, &query).await;
    assert_eq!(usage["total"]["ok"], 3);
    assert_eq!(usage["since"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap(), at(1));
}

#[apply(on_both!)]
async fn uses_that_cannot_be_written_are_counted_once_later(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, id) = app.key(&admin, "read").await;
    app.get("/api/v1/users").key(&key).send().await.expect(200);
    backend.execute("ALTER TABLE api_key_usage RENAME TO elsewhere").await;
    app.state.usage.flush(&app.state.db).await.unwrap_err();
    app.get("/api/v1/users").key(&key).send().await.expect(200);
    app.state.usage.flush(&app.state.db).await.unwrap_err();
    backend.execute("ALTER TABLE elsewhere RENAME TO api_key_usage").await;
    // Concurrent flushes count no use twice.
    let flush = || app.state.usage.flush(&app.state.db);
    let flushed = tokio::join!(flush(), flush(), flush(), flush());
    assert!(flushed.0.is_ok() && flushed.1.is_ok() && flushed.2.is_ok() && flushed.3.is_ok());
    assert_eq!(counts(&report(&app, &admin, id, "").await["total"]), [2, 0, 0, 0, 0]);
    app.stop().await.unwrap();
    let app = TestApp::new(&backend).await;
    assert_eq!(counts(&report(&app, &admin, id, "").await["total"]), [2, 0, 0, 0, 0]);
}

#[apply(on_both!)]
async fn uses_are_kept_for_ninety_days_and_deleted_with_their_key(backend: Backend) {
    const ROWS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_key_usage WHERE api_key_id > 1";
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let mut ids = vec![];
    for days in [0, 60] {
        app.advance(TimeDelta::days(days));
        let (key, id) = app.key(&admin, "read").await;
        app.get("/api/v1/users").key(&key).send().await.expect(200);
        app.state.usage.flush(&app.state.db).await.unwrap();
        ids.push(id);
    }
    service::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(ROWS).await, 2);
    app.advance(TimeDelta::days(31));
    service::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(ROWS).await, 1);
    assert_eq!(report(&app, &admin, ids[0], "?since=2020-01-01T00:00:00Z").await["total"]["ok"], 0);
    assert_eq!(report(&app, &admin, ids[1], "?since=2020-01-01T00:00:00Z").await["total"]["ok"], 1);
    app.delete(&format!("{KEYS}/{}", ids[1])).key(&admin).send().await.expect(204);
    assert_eq!(app.number(ROWS).await, 0);
}

#[apply(on_both!)]
async fn a_report_cancelled_by_its_client_counts_no_use_twice(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, id) = app.key(&admin, "read").await;
    for n in 0..200 {
        app.get("/api/v1/users").key(&key).send().await.expect(200);
        let reading = app.get(&format!("{KEYS}/{id}/usage")).key(&admin).try_send();
        // Times out between the request and the response.
        let _ = timeout(Duration::from_micros(n * 40), reading).await;
    }
    assert_eq!(counts(&report(&app, &admin, id, "").await["total"]), [200, 0, 0, 0, 0]);
}

#[apply(on_both!)]
async fn a_report_needs_an_admin_and_sensible_bounds(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, id) = app.key(&admin, "read,write,audit:read,keys:verify").await;
    let path = format!("{KEYS}/{id}/usage");
    app.get(&path).key(&key).send().await.refused(403, "Admin scope required to read API keys");
    app.get(&format!("{KEYS}/999/usage"))
        .key(&admin)
        .send()
        .await
        .refused(404, "API key not found");
    for (query, places) in [
        ("granularity=week", &["query.granularity"][..]),
        ("since=x&until=y", &["query.since", "query.until"]),
        ("since=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z", &["query.since"]),
        ("since=2026-02-01T00:00:00Z&until=2026-02-01T00:00:00Z", &["query.since"]),
        ("since=2999-01-01T00:00:00Z", &["query.since"]),
        ("until=0001-01-01T00:00:00Z", &["query.since"]),
    ] {
        app.get(&format!("{path}?{query}")).key(&admin).send().await.invalid(places);
    }
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.body.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect()
}

#[apply(on_both!)]
async fn unused_keys_are_found(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for name in ["never", "once", "lately"] {
        let body = json!({"name": name});
        let created = app.post(KEYS, body).key(&admin).send().await.expect(201);
        if name != "never" {
            let key = created["key"].as_str().unwrap();
            app.get("/api/v1/users").key(key).send().await.expect(200);
        }
    }
    app.advance(TimeDelta::days(89));
    let created = app.post(KEYS, json!({"name": "new"})).key(&admin).send().await.expect(201);
    let new = created["key"].as_str().unwrap();
    let unused = async |days: i64| {
        let path = format!("{KEYS}?unused_for_days={days}");
        app.get(&path).key(&admin).send().await
    };
    assert!(names(&unused(90).await).is_empty());
    app.advance(TimeDelta::days(2));
    assert_eq!(names(&unused(90).await), ["never", "once", "lately"]);
    // A use counts even before it is written.
    app.get("/api/v1/users").key(new).send().await.expect(200);
    assert_eq!(names(&unused(1).await), ["never", "once", "lately"]);
    let (skip, limit) = (1, 1);
    let path = format!("{KEYS}?unused_for_days=90&skip={skip}&limit={limit}&q=e");
    assert_eq!(names(&app.get(&path).key(&admin).send().await), ["once"]);
    app.act(&format!("{KEYS}/2/deactivate")).key(&admin).send().await.expect(200);
    assert_eq!(names(&unused(90).await), ["once", "lately"], "one that is off is not forgotten");
    for wrong in ["0", "-1", "3651", "x", "1.5"] {
        let path = format!("{KEYS}?unused_for_days={wrong}");
        app.get(&path).key(&admin).send().await.invalid(&["query.unused_for_days"]);
    }
}

#[apply(on_both!)]
async fn keys_are_searched_by_name(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for name in ["CI pipeline", "ci_nightly", "100% Überwachung", "ΟΔΥΣΣΕΥΣ", "x"] {
        app.post(KEYS, json!({"name": name})).key(&admin).send().await.expect(201);
    }
    let renamed = json!({"name": "Grafana"});
    app.patch(&format!("{KEYS}/6"), renamed).key(&admin).send().await.expect(200);
    for (q, expected) in [
        ("ci", &["CI pipeline", "ci_nightly"][..]),
        ("CI%20P", &["CI pipeline"]),
        ("_", &["ci_nightly"]),
        ("%25", &["100% Überwachung"]),
        ("%C3%BCBER", &["100% Überwachung"]),
        ("%CF%83%CF%83%CE%B5%CF%85%CF%82", &["ΟΔΥΣΣΕΥΣ"]),
        ("grafana", &["Grafana"]),
        ("'", &[]),
        ("!", &[]),
        ("x", &[]),
    ] {
        let path = format!("{KEYS}?q={q}");
        let answer = app.get(&path).key(&admin).send().await;
        assert_eq!(names(&answer), expected, "{q}");
    }
    let all = app.get(&format!("{KEYS}?q=")).key(&admin).send().await;
    assert_eq!(names(&all).len(), 6);
    let long = "x".repeat(256);
    app.get(&format!("{KEYS}?q={long}")).key(&admin).send().await.invalid(&["query.q"]);
    app.get(&format!("{KEYS}?q=%00")).key(&admin).send().await.invalid(&["query.q"]);
}
