//! Webhook events: which operations send one, and with which data.

use crate::support::{Backend, Receiver, TestApp};
use chrono::TimeDelta;
use octopus::features::api_keys::service;
use serde_json::{Value, json};

const KEYS: &str = "/api/v1/api-keys";

/// The type and the data of the first `n` received webhook events.
async fn received(receiver: &Receiver, n: usize) -> Vec<(String, Value)> {
    let read = |body: &str| {
        let webhook_event: Value = serde_json::from_str(body).unwrap();
        (webhook_event["type"].as_str().unwrap().to_owned(), webhook_event["data"].clone())
    };
    receiver.wait_for(n).await.iter().map(|delivery| read(&delivery.body)).collect()
}

#[apply(on_both!)]
async fn every_operation_on_a_key_sends_one_webhook_event_with_its_data(backend: Backend) {
    let receiver = Receiver::start().await;
    let app = TestApp::with(&backend, &receiver.variables()).await;
    let admin = app.admin().await;
    let (_, rotated) = app.key(&admin, "read").await;
    let path = format!("{KEYS}/{rotated}");
    app.patch(&path, json!({"name": "renamed"})).key(&admin).send().await.expect(200);
    let rotation = json!({"grace_period_seconds": 3600});
    let new = app.post(&format!("{path}/rotate"), rotation).key(&admin).send().await.expect(200);
    let new_id = new["id"].as_i64().unwrap();
    let path = format!("{KEYS}/{new_id}");
    for is_active in [false, false, true] {
        let change = json!({"is_active": is_active, "description": "x"});
        app.patch(&path, change).key(&admin).send().await.expect(200);
    }
    for _ in 0..2 {
        app.act(&format!("{path}/deactivate")).key(&admin).send().await.expect(200);
    }
    app.delete(&path).key(&admin).send().await.expect(204);
    let shown = app.get(&format!("{KEYS}/{rotated}")).key(&admin).send().await.expect(200);
    let grace_end = &shown["grace_expires_at"];
    app.advance(TimeDelta::hours(2));

    let webhook_events = received(&receiver, 8).await;
    let types: Vec<&str> = webhook_events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(
        types,
        [
            "api_key.created",
            "api_key.created",
            "api_key.rotated",
            "api_key.created",
            "api_key.deactivated",
            "api_key.deactivated",
            "api_key.deleted",
            "api_key.expired",
        ]
    );
    let data: Vec<&Value> = webhook_events.iter().map(|(_, data)| data).collect();
    assert_eq!((&data[0]["id"], &data[0]["name"]), (&json!(1), &json!("Master API Key")));
    let created = json!({"id": rotated, "name": "a key to read", "scopes": "read",
        "expires_at": null, "allowed_ips": null, "rate_limit_per_minute": null,
        "rotated_from_id": null});
    assert_eq!(data[1], &created);
    let expected = json!({"id": rotated, "name": "renamed", "rotated_to_id": new_id,
        "grace_expires_at": grace_end});
    assert_eq!(data[2], &expected);
    assert_eq!((&data[3]["id"], &data[3]["rotated_from_id"]), (&json!(new_id), &json!(rotated)));
    for deactivated in [data[4], data[5]] {
        assert_eq!(deactivated, &json!({"id": new_id, "name": "renamed"}));
    }
    assert_eq!(data[6]["id"], new_id);
    let expected = json!({"id": rotated, "name": "renamed", "expires_at": grace_end});
    assert_eq!(data[7], &expected);
    assert!(
        webhook_events.iter().all(|(_, data)| !data.to_string().contains("octopus_")),
        "no secrets"
    );
    receiver.only(8).await;
}

#[apply(on_both!)]
async fn a_refused_operation_sends_no_webhook_event(backend: Backend) {
    let receiver = Receiver::start().await;
    let app = TestApp::with(&backend, &receiver.variables()).await;
    let admin = app.admin().await;
    app.act(&format!("{KEYS}/1/deactivate")).key(&admin).send().await.expect(400);
    app.patch(&format!("{KEYS}/1"), json!({"scopes": "read"})).key(&admin).send().await.expect(409);
    app.act("/bootstrap").send().await.expect(400);
    receiver.wait_for(1).await;
    receiver.only(1).await;
}

#[apply(on_both!)]
async fn ten_bad_credentials_from_one_address_send_a_webhook_event(backend: Backend) {
    let receiver = Receiver::start().await;
    let app = TestApp::with(&backend, &receiver.variables()).await;
    app.admin().await;
    let fail = async |n: usize| {
        for _ in 0..n {
            app.get("/api/v1/users").key("a-key-nobody-made").send().await.expect(401);
        }
        service::record_failures(&app.state).await.unwrap();
    };
    fail(9).await;
    fail(10).await;
    let webhook_events = received(&receiver, 2).await;
    let data = json!({"client": "127.0.0.1", "count": 10});
    assert_eq!(webhook_events[1], ("authentication.failing".to_owned(), data));
    receiver.only(2).await;
}
