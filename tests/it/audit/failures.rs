//! Rejected credentials, which are recorded once a minute.

use super::{LOGS, VERIFY, get, intact};
use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use octopus::features::api_keys::service;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const ME: &str = "/api/v1/api-keys/me";

/// The recorded refusals: address, reason and count.
async fn recorded(app: &TestApp, admin: &str) -> Vec<(Value, Value, Value)> {
    let logs = get(app, admin, &format!("{LOGS}?action=auth_failed&limit=1000")).await;
    let rows = logs.as_array().unwrap().iter().rev().map(|log| {
        for field in ["api_key_id", "api_key_name", "performed_by_key_id", "request_id"] {
            assert_eq!(log[field], json!(null), "{log}");
        }
        assert_eq!(log["performed_by"], "anonymous");
        let details = &log["details"];
        (log["performed_by_ip"].clone(), details["reason"].clone(), details["count"].clone())
    });
    rows.collect()
}

#[apply(on_both!)]
async fn refused_credentials_are_counted_by_address_and_reason(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let end = app.state.clock.now() + TimeDelta::minutes(1);
    let make = async |body: Value| {
        let key = app.post("/api/v1/api-keys", body).key(&admin).send().await.expect(201);
        key["key"].as_str().unwrap().to_owned()
    };
    let expired = make(json!({"name": "expired", "expires_at": end})).await;
    let elsewhere = make(json!({"name": "elsewhere", "allowed_ips": "192.0.2.1"})).await;
    let (inactive, id) = app.key(&admin, "read").await;
    app.act(&format!("/api/v1/api-keys/{id}/deactivate")).key(&admin).send().await.expect(200);
    app.advance(TimeDelta::minutes(2));
    service::record_failures(&app.state).await.unwrap();
    let before = recorded(&app, &admin).await;
    assert_eq!(before, [], "no credential was refused yet");

    for _ in 0..5 {
        app.get(ME).key("nonsense").send().await.expect(401);
    }
    for (key, status) in [(&expired, 401), (&inactive, 401), (&inactive, 401), (&elsewhere, 403)] {
        app.get(ME).key(key).send().await.expect(status);
    }
    // A request without a credential is not counted.
    app.get(ME).send().await.expect(401);
    assert_eq!(recorded(&app, &admin).await, [], "in memory until the minute is over");
    service::record_failures(&app.state).await.unwrap();
    let row = |reason: &str, count: u64| (json!("127.0.0.1"), json!(reason), json!(count));
    let expected = [
        row("address_denied", 1),
        row("key_expired", 1),
        row("key_inactive", 2),
        row("key_invalid", 5),
    ];
    assert_eq!(recorded(&app, &admin).await, expected);
    service::record_failures(&app.state).await.unwrap();
    assert_eq!(recorded(&app, &admin).await, expected, "nothing is recorded twice");
    assert_eq!(get(&app, &admin, VERIFY).await["intact"], true);

    // Pending counts are written at shutdown.
    app.get(ME).key("nonsense").send().await.expect(401);
    app.stop().await.unwrap();
    let app = TestApp::new(&backend).await;
    let last = recorded(&app, &admin).await.pop();
    assert_eq!(last, Some(row("key_invalid", 1)));
}

#[apply(on_both!)]
async fn refusals_from_many_addresses_create_at_most_101_entries(backend: Backend) {
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let guess = async |addresses: std::ops::Range<u8>| {
        let mut guesses = JoinSet::new();
        for n in addresses {
            let call =
                app.get(ME).key("nonsense").header("X-Forwarded-For", format!("192.0.2.{n}"));
            guesses.spawn(call.send());
        }
        assert!(guesses.join_all().await.iter().all(|answer| answer.status == 401));
    };
    guess(0..150).await;
    guess(0..150).await;
    service::record_failures(&app.state).await.unwrap();
    let rows = recorded(&app, &admin).await;
    assert_eq!(rows.len(), 101);
    let (ip, reason, others) = rows.last().unwrap();
    assert_eq!((ip, reason, others), (&json!(null), &json!("others"), &json!(100)));
    for (ip, reason, count) in &rows[..100] {
        assert!(ip.as_str().unwrap().starts_with("192.0.2."), "{ip}");
        assert_eq!((reason, count), (&json!("key_invalid"), &json!(2)));
    }
    assert_eq!(get(&app, &admin, VERIFY).await["verified_rows"], 102);
}

#[apply(on_both!)]
async fn refusals_that_could_not_be_recorded_are_counted_again(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let guess = async || app.get(ME).key("nonsense").send().await.expect(401);
    guess().await;
    guess().await;
    backend.execute("UPDATE audit_head SET seq = seq - 1").await;
    service::record_failures(&app.state).await.expect_err("recorded beside the chain");
    guess().await;
    backend.execute("UPDATE audit_head SET seq = seq + 1").await;
    service::record_failures(&app.state).await.unwrap();
    let expected = [(json!("127.0.0.1"), json!("key_invalid"), json!(3))];
    assert_eq!(recorded(&app, &admin).await, expected);
    intact(&app.state, 2, "as if nothing had been").await;
}
