//! A clock that is set forward and back: what was written with the wrong time does not last.

use super::{CONVERSATIONS, KEYS};
use crate::support::{Backend, Receiver, Reply, TestApp};
use chrono::{DateTime, TimeDelta, Utc};
use octopus::db::lease;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// How far the clock was ahead.
const AHEAD: TimeDelta = TimeDelta::days(40);

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("a time").parse().unwrap()
}

async fn post_message(app: &TestApp, key: &str, content: &str) -> Value {
    let body = json!({"role": "user", "content": content});
    let path = format!("{CONVERSATIONS}/1/messages");
    app.post(&path, body).key(key).send().await.expect(201)
}

#[apply(on_both!)]
async fn messages_have_the_time_of_the_clock_and_the_order_of_their_numbers(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.conversation(&key, &[]).await;
    app.advance(AHEAD);
    let ahead = post_message(&app, &key, "ahead").await;
    app.advance(-AHEAD);
    let after = post_message(&app, &key, "after").await;
    let several =
        json!({"messages": [{"role": "user", "content": "b"}, {"role": "user", "content": "c"}]});
    let path = format!("{CONVERSATIONS}/1/messages");
    let batch = app.post(&format!("{path}/batch"), several).key(&key).send().await.expect(201);
    let latest = app.state.clock.now();
    assert!(time(&ahead["created_at"]) > latest + TimeDelta::days(39));
    for message in [&after, &batch[0], &batch[1]] {
        assert!(time(&message["created_at"]) <= latest, "{message}");
    }
    let edit = json!({"content": "edited"});
    let id = after["id"].as_i64().unwrap();
    let edited = app.patch(&format!("{path}/{id}"), edit).key(&key).send().await.expect(200);
    assert!(time(&edited["edited_at"]) >= time(&edited["created_at"]), "{edited}");
    // All of them in order, page by page.
    let (mut numbers, mut next) = (vec![], format!("{path}?limit=1"));
    loop {
        let answer = app.get(&next).key(&key).send().await;
        let link = answer.link("next");
        let page = answer.expect(200);
        numbers.extend(page.as_array().unwrap().iter().map(|one| one["seq"].as_i64().unwrap()));
        match link {
            Some(link) if numbers.len() < 10 => next = link,
            _ => break,
        }
    }
    assert_eq!(numbers, [1, 2, 3, 4]);
    let path = format!("{CONVERSATIONS}/1");
    let conversation = app.get(&path).key(&key).send().await.expect(200);
    assert_eq!(conversation["last_message_at"], batch[1]["created_at"]);
    let latest = app.state.clock.now();
    assert!(time(&conversation["updated_at"]) <= latest, "{conversation}");
    let titled = app.put(&path, json!({"title": "x"})).key(&key).send().await.expect(200);
    assert!(time(&titled["updated_at"]) <= app.state.clock.now(), "{titled}");
}

#[apply(on_both!)]
async fn a_message_of_2099_does_not_date_the_messages_after_it(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.conversation(&key, &[]).await;
    post_message(&app, &key, "hello").await;
    let sql = "UPDATE messages SET created_at = '2099-12-31T00:00:00+00:00'; \
        UPDATE conversations SET active_at = '2099-12-31T00:00:00+00:00', \
        updated_at = '2099-12-31T00:00:00+00:00'";
    backend.execute(sql).await;
    let posted = post_message(&app, &key, "hello again").await;
    assert!(time(&posted["created_at"]) <= app.state.clock.now(), "{posted}");
    assert_eq!(posted["seq"], 2);
}

#[apply(on_both!)]
async fn the_last_use_of_a_key_and_a_session_is_not_in_the_future(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let user = app.user("ada").await;
    let session = app.session_of(user).await;
    let use_both = async || {
        app.get(&format!("{KEYS}/me")).key(&key).send().await;
        app.get("/api/v1/users/me").session(&session).send().await.expect(200);
        app.state.usage.flush(&app.state.db).await.unwrap();
        app.state.session_uses.flush(&app.state.db).await.unwrap();
    };
    // Less than the time after which an unused session ends.
    let ahead = TimeDelta::days(10);
    app.advance(ahead);
    use_both().await;
    app.advance(-ahead);
    use_both().await;
    let shown = app.get(&format!("{KEYS}/1")).key(&key).send().await.expect(200);
    assert!(time(&shown["last_used_at"]) <= app.state.clock.now(), "{shown}");
    let sessions = app.get("/api/v1/users/me/sessions").session(&session).send().await.expect(200);
    assert!(time(&sessions[0]["last_used_at"]) <= app.state.clock.now(), "{sessions}");
}

#[apply(on_both!)]
async fn a_retry_after_the_clock_was_set_back_is_a_replay(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.conversation(&key, &[]).await;
    let post = async || {
        let body = json!({"role": "user", "content": "once"});
        let call = app.post(&format!("{CONVERSATIONS}/1/messages"), body).key(&key);
        call.header("Idempotency-Key", "a").send().await
    };
    app.advance(AHEAD);
    let first = post().await.expect(201);
    app.advance(-AHEAD);
    let second = post().await;
    assert!([200, 201].contains(&second.status), "{}", second.text);
    assert_eq!(second["id"], first["id"]);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM messages").await, 1);
}

#[apply(on_both!)]
async fn the_audit_chain_stays_intact(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    for by in [AHEAD, -AHEAD, -TimeDelta::days(1)] {
        app.advance(by);
        app.key(&key, "read").await;
    }
    let verified = app.get("/api/v1/admin/audit/verify").key(&key).send().await.expect(200);
    assert_eq!(verified["intact"], true, "{verified}");
}

#[apply(on_both!)]
async fn a_lease_of_a_clock_that_was_ahead_does_not_stop_a_job(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let take = async |holder: &str| {
        let mut tx = app.state.db.begin().await.unwrap();
        let now = app.state.clock.now();
        let until = now + TimeDelta::minutes(1);
        let taken = lease::take(&mut tx, "a job", holder, now, until).await.unwrap();
        tx.commit().await.unwrap();
        taken
    };
    app.advance(AHEAD);
    assert!(take("one").await);
    assert!(!take("another").await);
    app.advance(-AHEAD);
    assert!(take("another").await, "a new lease ends earlier");
    assert!(!take("one").await);
}

#[apply(on_both!)]
async fn a_webhook_event_of_a_clock_that_was_ahead_is_delivered(backend: Backend) {
    const PENDING: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM webhook_outbox";
    let receiver = Receiver::start().await;
    receiver.always(Reply::Status(500));
    let app = TestApp::with(&backend, &receiver.variables()).await;
    app.advance(AHEAD);
    app.admin().await;
    receiver.wait_for(1).await;
    app.advance(-AHEAD);
    receiver.always(Reply::Status(200));
    for _ in 0..400 {
        if app.number(PENDING).await == 0 {
            return;
        }
        sleep(Duration::from_millis(25)).await;
    }
    panic!("it is still pending");
}
