//! Webhook deliveries: signature, retries, and who sends them.

use crate::support::{Backend, Delivery, Receiver, Reply, TestApp, WEBHOOK_SECRET};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use octopus::features::api_keys::webhook_events::announce_expiring;
use octopus::webhooks::Event;
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const PENDING: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM webhook_outbox";
const ATTEMPTS: &str = "SELECT COALESCE(CAST(SUM(attempts) AS BIGINT), 0) FROM webhook_outbox";

/// Enqueues a webhook event about key `n`.
async fn enqueue(app: &TestApp, n: i64) {
    let (state, data) = (&app.state, json!({"id": n}));
    let mut tx = state.db.begin().await.unwrap();
    state.webhooks.enqueue(&mut tx, Event::KeyCreated, &data, state.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
}

/// Waits until `sql` returns `expected`.
async fn until(app: &TestApp, sql: &'static str, expected: i64) {
    for _ in 0..400 {
        if app.number(sql).await == expected {
            return;
        }
        sleep(Duration::from_millis(25)).await;
    }
    panic!("{sql} gives {}, not {expected}", app.number(sql).await);
}

/// The signature according to Standard Webhooks, computed independently.
fn signature(id: &str, timestamp: &str, body: &str) -> String {
    let key = STANDARD.decode(WEBHOOK_SECRET.trim_start_matches("whsec_")).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[apply(on_both!)]
async fn a_webhook_event_is_signed_and_sent_as_it_is_stored(backend: Backend) {
    let receiver = Receiver::start().await;
    // The row can be read while the receiver hangs.
    receiver.reply([Reply::Hang]);
    let app = TestApp::with(&backend, &receiver.variables()).await;
    let before = app.state.clock.now();
    enqueue(&app, 7).await;
    let sent = receiver.wait_for(1).await.remove(0);
    let rows: Vec<(String, String, DateTime<Utc>)> =
        app.rows("SELECT message_id, payload, created_at FROM webhook_outbox").await;
    let (id, payload, created_at) = &rows[0];
    assert_eq!((&sent.body, sent.id()), (payload, id.as_str()));
    assert!(id.starts_with("msg_") && !id.contains('.'));
    let at = created_at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let expected = format!(r#"{{"type":"api_key.created","timestamp":"{at}","data":{{"id":7}}}}"#);
    assert_eq!(sent.body, expected);

    assert_eq!(sent.path, "/take/hunter2?token=hunter2");
    assert_eq!(sent.header("content-type"), "application/json");
    let version = concat!("octopus/", env!("CARGO_PKG_VERSION"));
    assert_eq!(sent.header("user-agent"), version);
    let timestamp = sent.header("webhook-timestamp");
    let seconds = timestamp.parse::<i64>().unwrap() - before.timestamp();
    assert!((0..5).contains(&seconds), "{seconds}");
    let expected = signature(sent.id(), timestamp, &sent.body);
    assert_eq!(sent.header("webhook-signature"), expected);
    app.stop().await.unwrap();

    // The delivery had no response, so the same webhook event is sent again and then removed.
    let app = TestApp::with(&backend, &receiver.variables()).await;
    let retry = receiver.wait_for(2).await.remove(1);
    assert_eq!((retry.id(), &retry.body), (sent.id(), &sent.body));
    until(&app, PENDING, 0).await;
    receiver.only(2).await;
}

#[apply(on_both!)]
async fn a_failed_delivery_is_retried_later_and_delays_no_other(backend: Backend) {
    let receiver = Receiver::start().await;
    receiver.reply([Reply::Status(500)]);
    let app = TestApp::with(&backend, &receiver.variables()).await;
    enqueue(&app, 1).await;
    enqueue(&app, 2).await;
    let sent = receiver.wait_for(2).await;
    assert_ne!(sent[0].id(), sent[1].id(), "the second does not wait for the first");
    until(&app, PENDING, 1).await;
    let failed: Vec<(String, i64, Option<String>)> =
        app.rows("SELECT message_id, attempts, last_error FROM webhook_outbox").await;
    assert_eq!(failed, [(sent[0].id().to_owned(), 1, Some("status 500".to_owned()))]);

    receiver.only(2).await;
    assert_eq!(app.state.webhooks.queue(), 1, "the one that waits is counted");
    app.advance(TimeDelta::seconds(5));
    let retry = receiver.wait_for(3).await.remove(2);
    assert_eq!((retry.id(), &retry.body), (sent[0].id(), &sent[0].body));
    let timestamp = retry.header("webhook-timestamp");
    assert_ne!(timestamp, sent[0].header("webhook-timestamp"), "it is the attempt's");
    let expected = signature(retry.id(), timestamp, &retry.body);
    assert_eq!(retry.header("webhook-signature"), expected);
    until(&app, PENDING, 0).await;
}

#[apply(on_both!)]
async fn a_retry_after_of_the_receiver_is_respected(backend: Backend) {
    let receiver = Receiver::start().await;
    receiver.reply([Reply::With(503, "retry-after", "600".to_owned())]);
    let app = TestApp::with(&backend, &receiver.variables()).await;
    enqueue(&app, 1).await;
    until(&app, ATTEMPTS, 1).await;
    app.advance(TimeDelta::seconds(590));
    receiver.only(1).await;
    app.advance(TimeDelta::seconds(10));
    receiver.wait_for(2).await;
}

#[apply(on_both!)]
async fn a_redirect_is_a_failure_and_not_followed(backend: Backend) {
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let location = format!("http://{}/", elsewhere.address);
    receiver.always(Reply::With(308, "location", location));
    let app = TestApp::with(&backend, &receiver.variables()).await;
    enqueue(&app, 1).await;
    until(&app, ATTEMPTS, 1).await;
    let errors: Vec<(String,)> = app.rows("SELECT last_error FROM webhook_outbox").await;
    assert_eq!(errors, [("status 308".to_owned(),)]);
    elsewhere.only(0).await;
}

#[apply(on_both!)]
async fn a_hanging_receiver_delays_neither_requests_nor_the_shutdown(backend: Backend) {
    let receiver = Receiver::start().await;
    receiver.always(Reply::Hang);
    let app = TestApp::with(&backend, &receiver.variables()).await;
    let admin = app.admin().await;
    receiver.wait_for(1).await;
    let started = Instant::now();
    app.key(&admin, "read").await;
    assert!(started.elapsed() < Duration::from_secs(2), "waited {:?}", started.elapsed());
    let started = Instant::now();
    app.stop().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "stopped after {:?}", started.elapsed());

    receiver.always(Reply::Status(200));
    let app = TestApp::with(&backend, &receiver.variables()).await;
    until(&app, PENDING, 0).await;
    receiver.only(3).await;
}

#[apply(on_both!)]
async fn a_webhook_event_is_abandoned_after_3_days_and_deleted_after_30_more(backend: Backend) {
    const GIVEN_UP: &str = "SELECT CAST(COUNT(gave_up_at) AS BIGINT) FROM webhook_outbox";
    let receiver = Receiver::start().await;
    receiver.always(Reply::Status(500));
    let app = TestApp::with(&backend, &receiver.variables()).await;
    enqueue(&app, 1).await;
    until(&app, ATTEMPTS, 1).await;
    app.advance(TimeDelta::days(3) - TimeDelta::minutes(1));
    until(&app, ATTEMPTS, 2).await;
    assert_eq!(app.number(GIVEN_UP).await, 0);
    app.advance(TimeDelta::minutes(1));
    until(&app, GIVEN_UP, 1).await;
    let rows: Vec<(i64, String)> =
        app.rows("SELECT attempts, last_error FROM webhook_outbox").await;
    assert_eq!(rows, [(3, "status 500".to_owned())]);
    // The command that docs/WEBHOOKS.md gives for use after the receiver recovers.
    backend.execute("UPDATE webhook_outbox SET gave_up_at = NULL").await;
    until(&app, ATTEMPTS, 4).await;
    assert_eq!(app.number(GIVEN_UP).await, 1);
    app.advance(TimeDelta::days(29));
    receiver.only(4).await;
    assert_eq!((app.number(PENDING).await, app.state.webhooks.queue()), (1, 0));
    app.advance(TimeDelta::days(1) + TimeDelta::minutes(1));
    until(&app, PENDING, 0).await;
}

#[apply(on_both!)]
async fn a_change_that_rolls_back_sends_nothing(backend: Backend) {
    let receiver = Receiver::start().await;
    let app = TestApp::with(&backend, &receiver.variables()).await;
    let (state, data) = (&app.state, json!({"id": 1}));
    let mut tx = state.db.begin().await.unwrap();
    state.webhooks.enqueue(&mut tx, Event::KeyDeleted, &data, state.clock.now()).await.unwrap();
    tx.rollback().await.unwrap();
    receiver.only(0).await;
}

#[apply(on_both!)]
async fn two_servers_send_each_webhook_event_once_and_one_takes_over(backend: Backend) {
    let receiver = Receiver::start().await;
    let first = TestApp::with(&backend, &receiver.variables()).await;
    enqueue(&first, 0).await;
    receiver.wait_for(1).await;
    let second = TestApp::with(&backend, &receiver.variables()).await;
    // Slow enough for the other server to poll several times meanwhile.
    receiver.reply([const { Reply::After(Duration::from_millis(1500)) }; 2]);
    for n in 0..20 {
        enqueue(if n % 2 == 0 { &first } else { &second }, n).await;
    }
    receiver.wait_for(21).await;
    let sent = receiver.only(21).await;
    let ids: HashSet<_> = sent.iter().map(Delivery::id).collect();
    assert_eq!(ids.len(), 21, "each was delivered once");

    let started = Instant::now();
    first.stop().await.unwrap();
    enqueue(&second, 21).await;
    receiver.wait_for(22).await;
    assert!(started.elapsed() < Duration::from_secs(8), "took over after {:?}", started.elapsed());
}

#[apply(on_both!)]
async fn a_lease_that_was_not_released_expires(backend: Backend) {
    let receiver = Receiver::start().await;
    let app = TestApp::with(&backend, &receiver.variables()).await;
    let until = app.state.clock.now() + TimeDelta::minutes(1);
    let mut tx = app.state.db.begin().await.unwrap();
    let sql = "INSERT INTO leases (name, holder, expires_at) VALUES ('webhooks', 'killed', $1)";
    octopus::db::query(&mut tx, sql).bind(until).execute().await.unwrap();
    tx.commit().await.unwrap();
    enqueue(&app, 1).await;
    receiver.only(0).await;
    app.advance(TimeDelta::minutes(1));
    receiver.wait_for(1).await;
}

#[apply(on_both!)]
async fn without_a_url_nothing_is_written(backend: Backend) {
    let app = TestApp::with(&backend, &[("CLEANUP_INTERVAL_SECONDS", "1")]).await;
    let admin = app.admin().await;
    key(&app, &admin, "soon", TimeDelta::days(20)).await;
    enqueue(&app, 1).await;
    app.advance(TimeDelta::days(15));
    assert_eq!(announce_expiring(&app.state).await.unwrap(), 0);
    sleep(Duration::from_millis(1500)).await;
    for sql in [
        PENDING,
        "SELECT CAST(COUNT(*) AS BIGINT) FROM leases",
        "SELECT CAST(COUNT(*) AS BIGINT) FROM expiry_notices",
    ] {
        assert_eq!(app.number(sql).await, 0, "{sql}");
    }
}

/// Creates a key that expires after `life`; returns its id.
async fn key(app: &TestApp, admin: &str, name: &str, life: TimeDelta) -> i64 {
    let body = json!({"name": name, "expires_at": app.state.clock.now() + life});
    let created = app.post("/api/v1/api-keys", body).key(admin).send().await.expect(201);
    created["id"].as_i64().unwrap()
}

/// The key ids and days of every `api_key.expiring` in the outbox.
async fn announced(app: &TestApp) -> Vec<(i64, i64)> {
    let rows: Vec<(String,)> = app
        .rows("SELECT payload FROM webhook_outbox WHERE event = 'api_key.expiring' ORDER BY id")
        .await;
    let data = |(payload,): &(String,)| {
        let payload: Value = serde_json::from_str(payload).unwrap();
        (payload["data"]["id"].as_i64().unwrap(), payload["data"]["days"].as_i64().unwrap())
    };
    rows.iter().map(data).collect()
}

/// A server whose webhook events stay in the outbox.
async fn quiet(backend: &Backend) -> TestApp {
    let variables = [
        ("WEBHOOK_URL", "http://127.0.0.1:1/"),
        ("WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("RATE_LIMIT_ENABLED", "false"),
        // The test itself calls the announcement.
        ("CLEANUP_INTERVAL_SECONDS", "86400"),
    ];
    TestApp::with(backend, &variables).await
}

#[apply(on_both!)]
async fn an_expiring_key_is_announced_once_at_each_threshold(backend: Backend) {
    let receiver = Receiver::start().await;
    // Created before a webhook URL is set.
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let id = key(&app, &admin, "CI pipeline", TimeDelta::days(40)).await;
    app.stop().await.unwrap();
    let app = TestApp::with(&backend, &receiver.variables()).await;
    receiver.only(0).await;
    for (number, days, advance) in [(1, 30, 10), (2, 7, 23), (3, 1, 6)] {
        app.advance(TimeDelta::days(advance));
        receiver.wait_for(number).await;
        let sent = receiver.only(number).await.remove(number - 1);
        let body: Value = serde_json::from_str(&sent.body).unwrap();
        assert_eq!(body["type"], "api_key.expiring");
        let key = app.get(&format!("/api/v1/api-keys/{id}")).key(&admin).send().await.expect(200);
        let end = &key["expires_at"];
        let data = json!({"id": id, "name": "CI pipeline", "expires_at": end, "days": days});
        assert_eq!(body["data"], data);
    }
}

#[apply(on_both!)]
async fn two_servers_announce_each_expiring_key_once(backend: Backend) {
    let (first, second) = (quiet(&backend).await, quiet(&backend).await);
    let admin = first.admin().await;
    let mut tx = first.state.db.begin().await.unwrap();
    let now = first.state.clock.now();
    for n in 0..450_u64 {
        let sql = "INSERT INTO api_keys (key_hash, key_prefix, name, scopes, created_at, expires_at) \
                   VALUES ($1, 'octopus_xxxx', 'k', 'read', $2, $3)";
        let hash = [n.to_be_bytes(); 4].concat();
        let end = now + TimeDelta::days(31);
        octopus::db::query(&mut tx, sql).bind(hash).bind(now).bind(end).execute().await.unwrap();
    }
    tx.commit().await.unwrap();
    for days in [1, 23, 6] {
        first.advance(TimeDelta::days(days));
        second.advance(TimeDelta::days(days));
        let counts =
            tokio::join!(announce_expiring(&first.state), announce_expiring(&second.state));
        assert_eq!(counts.0.unwrap() + counts.1.unwrap(), 450);
        assert_eq!(announce_expiring(&second.state).await.unwrap(), 0, "not a second time");
    }
    let announced: HashSet<_> = announced(&first).await.into_iter().collect();
    assert_eq!(announced.len(), 3 * 450);
    first.get("/api/v1/api-keys/me").key(&admin).send().await.expect(200);
}

#[apply(on_both!)]
async fn a_key_that_passed_several_thresholds_is_announced_once(backend: Backend) {
    let app = quiet(&backend).await;
    let admin = app.admin().await;
    let id = key(&app, &admin, "forgotten", TimeDelta::days(40)).await;
    // No server runs for weeks.
    app.advance(TimeDelta::days(35));
    assert_eq!(announce_expiring(&app.state).await.unwrap(), 1);
    assert_eq!(announced(&app).await, [(id, 7)]);
    // A new expiry has new thresholds.
    let path = format!("/api/v1/api-keys/{id}");
    let body = json!({"expires_at": app.state.clock.now() + TimeDelta::days(20)});
    app.patch(&path, body).key(&admin).send().await.expect(200);
    assert_eq!(announce_expiring(&app.state).await.unwrap(), 1);
    app.advance(TimeDelta::days(19) + TimeDelta::hours(1));
    assert_eq!(announce_expiring(&app.state).await.unwrap(), 1);
    assert_eq!(announced(&app).await, [(id, 7), (id, 30), (id, 1)]);
}

#[apply(on_both!)]
async fn deactivated_and_rotated_keys_are_not_announced(backend: Backend) {
    let app = quiet(&backend).await;
    let admin = app.admin().await;
    let short = key(&app, &admin, "short", TimeDelta::days(5)).await;
    key(&app, &admin, "shorter", TimeDelta::hours(5)).await;
    let [off, rotated] = ["off", "rotated"].map(|name| (name, TimeDelta::days(31)));
    let off = key(&app, &admin, off.0, off.1).await;
    let rotated = key(&app, &admin, rotated.0, rotated.1).await;
    assert_eq!(
        announce_expiring(&app.state).await.unwrap(),
        0,
        "created with less time left than the threshold"
    );
    let act =
        |id: i64, what: &str| app.act(&format!("/api/v1/api-keys/{id}/{what}")).key(&admin).send();
    act(off, "deactivate").await.expect(200);
    let answer = act(rotated, "rotate").await;
    assert!([200, 201].contains(&answer.status), "{answer:?}");
    let successor = answer["id"].as_i64().unwrap();
    app.advance(TimeDelta::days(2));
    announce_expiring(&app.state).await.unwrap();
    app.advance(TimeDelta::days(2) + TimeDelta::hours(1));
    announce_expiring(&app.state).await.unwrap();
    assert_eq!(announced(&app).await, [(successor, 30), (short, 1)]);
}
