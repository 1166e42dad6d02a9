//! Retention: removal of conversations and events that are inactive or old.

use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use octopus::core::config::Config;
use octopus::db::query;
use octopus::features::conversations::events;
use octopus::features::conversations::retention::{Removed, Retention};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const CONVERSATIONS: &str = "/api/v1/conversations";

/// A server that keeps conversations for 30 days; the job runs at the start and not again.
async fn server(backend: &Backend) -> TestApp {
    let variables = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("RETENTION_DAYS", "30"),
        ("CLEANUP_INTERVAL_SECONDS", "86400"),
    ];
    let app = TestApp::with(backend, &variables).await;
    // The job of the server runs once at startup, and must not run while the test does.
    app.get("/ready").send().await.expect(200);
    sleep(Duration::from_millis(300)).await;
    app
}

/// Removes old conversations; returns the numbers removed.
async fn remove_old(app: &TestApp) -> Removed {
    let mut retention = Retention::new(&app.state);
    retention.remove_old(&CancellationToken::new()).await.unwrap();
    retention.release().await.unwrap();
    retention.take_removed()
}

async fn post_message(app: &TestApp, key: &str, id: i64) -> u16 {
    let body = json!({"role": "user", "content": "hello"});
    app.post(&format!("{CONVERSATIONS}/{id}/messages"), body).key(key).send().await.status
}

/// Creates a conversation of `n` messages; returns its id.
async fn long_conversation(app: &TestApp, key: &str, participants: &[i64], n: i64) -> i64 {
    const SQL: &str = "INSERT INTO messages (conversation_id, seq, role, content, created_at) \
        VALUES ($1, $2, 'user', 'x', $3)";
    const LAST: &str = "UPDATE conversations SET last_seq = $1, active_at = $2 WHERE id = $3";
    let id = app.conversation(key, participants).await;
    let now = app.state.clock.now();
    let mut tx = app.state.db.begin().await.unwrap();
    for seq in 1..=n {
        query(&mut tx, SQL).bind(id).bind(seq).bind(now).execute().await.unwrap();
    }
    query(&mut tx, LAST).bind(n).bind(now).bind(id).execute().await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// The number of rows of conversations, messages, participants and events.
async fn rows(app: &TestApp) -> i64 {
    app.number(
        "SELECT CAST((SELECT COUNT(*) FROM conversations) + (SELECT COUNT(*) FROM messages) \
         + (SELECT COUNT(*) FROM participants) + (SELECT COUNT(*) FROM conversation_events) \
         AS BIGINT)",
    )
    .await
}

#[apply(on_both!)]
async fn everything_is_kept_unless_configured(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.conversation(&key, &[]).await;
    app.advance(TimeDelta::days(36_500));
    assert_eq!(remove_old(&app).await, Removed::default());
    assert_eq!(rows(&app).await, 1);
}

#[apply(on_both!)]
async fn old_conversations_are_removed_with_all_their_rows(backend: Backend) {
    let app = server(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let (without_messages, with_messages, renewed) = (
        app.conversation(&key, &[alice]).await,
        app.conversation(&key, &[alice]).await,
        app.conversation(&key, &[alice]).await,
    );
    for id in [with_messages, with_messages, renewed] {
        assert_eq!(post_message(&app, &key, id).await, 201);
    }
    app.advance(TimeDelta::days(29));
    assert_eq!(remove_old(&app).await, Removed::default());
    assert_eq!(post_message(&app, &key, renewed).await, 201);
    // A new title does not count as activity.
    let title = json!({"title": "new"});
    app.put(&format!("{CONVERSATIONS}/{without_messages}"), title)
        .key(&key)
        .send()
        .await
        .expect(200);
    app.advance(TimeDelta::days(2));
    let fresh = app.conversation(&key, &[]).await;
    assert_eq!(remove_old(&app).await, Removed { conversations: 2, messages: 2 });
    let left = app.get(CONVERSATIONS).key(&key).send().await.expect(200);
    let ids: Vec<_> =
        left.as_array().unwrap().iter().map(|conversation| conversation["id"].clone()).collect();
    assert_eq!(ids, [renewed, fresh]);
    // Two conversations, two messages, one participant, and one event for each of the last three.
    assert_eq!(rows(&app).await, 2 + 2 + 1 + 3);
    app.get("/api/v1/users/1").key(&key).send().await.expect(200);
}

#[apply(on_both!)]
async fn readers_never_see_a_partly_removed_conversation(backend: Backend) {
    let app = server(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let id = long_conversation(&app, &key, &[alice], 5000).await;
    app.advance(TimeDelta::days(31));
    let session = app.session_of(alice).await;
    let reading = async {
        let mut reads = 0;
        loop {
            let path = format!("{CONVERSATIONS}/{id}/messages?limit=50");
            let [by_key, by_session] = [
                app.get(&path).key(&key).send().await,
                app.get(&path).session(&session).send().await,
            ];
            reads += 1;
            for answer in [&by_key, &by_session] {
                if answer.status == 200 {
                    assert_eq!(answer.body.as_array().unwrap().len(), 50);
                } else {
                    assert_eq!(answer.status, 404, "{}", answer.text);
                }
            }
            if by_key.status == 404 {
                return reads;
            }
        }
    };
    let (removed, reads) = tokio::join!(remove_old(&app), reading);
    assert_eq!(removed, Removed { conversations: 1, messages: 5000 });
    assert!(reads > 0);
    assert_eq!(rows(&app).await, 0);
}

#[apply(on_both!)]
async fn retired_conversations_are_invisible_and_finally_removed(backend: Backend) {
    // State of a server that stopped during the removal; this one keeps everything.
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = long_conversation(&app, &key, &[], 3).await;
    let other = app.conversation(&key, &[]).await;
    backend
        .execute(format!("UPDATE conversations SET retired_at = created_at WHERE id = {id}"))
        .await;
    let (path, message) =
        (format!("{CONVERSATIONS}/{id}"), json!({"role": "user", "content": "x"}));
    for call in [
        app.get(&path),
        app.get(&format!("{path}/messages")),
        app.get(&format!("{path}/export")),
        app.put(&path, json!({"title": "x"})),
        app.delete(&path),
        app.post(&format!("{path}/messages"), message),
    ] {
        call.key(&key).send().await.refused(404, "Conversation not found");
    }
    let join = app.post(&format!("{path}/participants"), json!({"user_id": 1})).key(&key);
    join.send().await.refused(404, "Conversation or user not found");
    let listed = app.get(CONVERSATIONS).key(&key).send().await.expect(200);
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &Value::from(other)));
    assert_eq!(remove_old(&app).await, Removed { conversations: 1, messages: 3 });
    assert_eq!(rows(&app).await, 1);
}

#[apply(on_both!)]
async fn others_write_while_a_long_conversation_is_removed(backend: Backend) {
    let app = server(&backend).await;
    let key = app.admin().await;
    long_conversation(&app, &key, &[], 20_000).await;
    app.advance(TimeDelta::days(31));
    let id = app.conversation(&key, &[]).await;
    let done = CancellationToken::new();
    let removing = async {
        let removed = remove_old(&app).await;
        done.cancel();
        removed
    };
    let writing = async {
        let mut longest = Duration::ZERO;
        let mut written = 0;
        while !done.is_cancelled() {
            let started = Instant::now();
            assert_eq!(post_message(&app, &key, id).await, 201);
            longest = longest.max(started.elapsed());
            written += 1;
        }
        (longest, written)
    };
    let (removed, (longest, written)) = tokio::join!(removing, writing);
    assert_eq!(removed, Removed { conversations: 1, messages: 20_000 });
    // The removal takes at least twenty transactions, with writes in between.
    assert!(written >= 5, "only {written} writes, the longest {longest:?}");
}

#[apply(on_both!)]
async fn a_message_accepted_at_the_last_moment_is_not_lost(backend: Backend) {
    let app = server(&backend).await;
    let key = app.admin().await;
    for n in 0..20 {
        // Short and long conversations.
        let id = long_conversation(&app, &key, &[], if n % 2 == 0 { 2 } else { 1001 }).await;
        app.advance(TimeDelta::days(31));
        let (_, status) = tokio::join!(remove_old(&app), post_message(&app, &key, id));
        let path = format!("{CONVERSATIONS}/{id}?message_limit=1");
        let shown = app.get(&path).key(&key).send().await;
        if status == 201 {
            let shown = shown.expect(200);
            assert_eq!(shown["messages"][0]["content"], "hello");
            app.delete(&format!("{CONVERSATIONS}/{id}")).key(&key).send().await.expect(204);
            // A long conversation is only hidden by the deletion; the job removes its rows.
            remove_old(&app).await;
        } else {
            assert_eq!((status, shown.status), (404, 404));
        }
        assert_eq!(rows(&app).await, 0);
    }
}

#[apply(on_both!)]
async fn only_one_process_at_a_time_removes(backend: Backend) {
    let app = server(&backend).await;
    let key = app.admin().await;
    app.conversation(&key, &[]).await;
    app.advance(TimeDelta::days(31));
    let stop = CancellationToken::new();
    let (mut first, mut second) = (Retention::new(&app.state), Retention::new(&app.state));
    let one = Removed { conversations: 1, messages: 0 };
    first.remove_old(&stop).await.unwrap();
    assert_eq!(first.take_removed(), one);
    app.conversation(&key, &[]).await;
    app.advance(TimeDelta::days(31));
    first.remove_old(&stop).await.unwrap();
    assert_eq!(first.take_removed(), one);
    // The lease is held until it is released or expires.
    let mut expected = vec![];
    for has_run_out in [false, true] {
        let id = app.conversation(&key, &[]).await;
        let old = app.state.clock.now() - TimeDelta::days(31);
        let mut tx = app.state.db.begin().await.unwrap();
        let age = "UPDATE conversations SET active_at = $1 WHERE id = $2";
        query(&mut tx, age).bind(old).bind(id).execute().await.unwrap();
        tx.commit().await.unwrap();
        second.remove_old(&stop).await.unwrap();
        expected.push(second.take_removed());
        if has_run_out {
            app.advance(TimeDelta::seconds(61));
        } else {
            first.release().await.unwrap();
        }
        second.remove_old(&stop).await.unwrap();
        expected.push(second.take_removed());
        second.release().await.unwrap();
        // Releasing a lease that is not held has no effect.
        second.release().await.unwrap();
        let id = app.conversation(&key, &[]).await;
        let mut tx = app.state.db.begin().await.unwrap();
        query(&mut tx, age).bind(old).bind(id).execute().await.unwrap();
        tx.commit().await.unwrap();
        first.remove_old(&stop).await.unwrap();
        assert_eq!(first.take_removed(), one);
    }
    let none = Removed::default();
    assert_eq!(expected, [none, one, none, one]);
    // After cancellation nothing is removed.
    stop.cancel();
    app.conversation(&key, &[]).await;
    app.advance(TimeDelta::days(31));
    first.remove_old(&stop).await.unwrap();
    assert_eq!(first.take_removed(), none);
}

#[apply(on_both!)]
async fn the_background_job_removes_old_conversations(backend: Backend) {
    let variables = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("RETENTION_DAYS", "1"),
        ("CLEANUP_INTERVAL_SECONDS", "1"),
    ];
    let app = TestApp::with(&backend, &variables).await;
    let key = app.admin().await;
    app.conversation(&key, &[]).await;
    app.advance(TimeDelta::hours(25));
    let end = Instant::now() + Duration::from_secs(10);
    while rows(&app).await > 0 {
        assert!(Instant::now() < end, "the job removes nothing");
        sleep(Duration::from_millis(50)).await;
    }
    let leases = "SELECT CAST(COUNT(*) AS BIGINT) FROM leases WHERE name = 'retention'";
    assert_eq!(app.number(leases).await, 1);
    app.stop().await.unwrap();
    let db = backend.open().await;
    let (leases,): (i64,) = query(&db, leases).one().await.unwrap();
    assert_eq!(leases, 0, "the lease is released");
    db.close().await;
}

#[apply(on_both!)]
async fn old_events_are_removed_and_clients_that_missed_them_are_notified(backend: Backend) {
    let app = server(&backend).await;
    let key = app.admin().await;
    let (id, other) = (app.conversation(&key, &[]).await, app.conversation(&key, &[]).await);
    let events_after =
        |last: i64| app.get(&format!("{CONVERSATIONS}/{id}/events?last_event_id={last}")).key(&key);
    for _ in 0..3 {
        post_message(&app, &key, id).await;
    }
    post_message(&app, &key, other).await;
    let seen = events_after(0).subscribe().await.take(3).await;
    app.advance(TimeDelta::days(20));
    post_message(&app, &key, id).await;
    events::forget_old(&app.state).await.unwrap();
    assert_eq!(
        events_after(0).subscribe().await.take(4).await[0],
        seen[0],
        "the events are not old yet"
    );
    app.advance(TimeDelta::days(11));
    events::forget_old(&app.state).await.unwrap();
    let left = "SELECT CAST(COUNT(*) AS BIGINT) FROM conversation_events";
    assert_eq!(app.number(left).await, 1);

    // A client that resumes before removed events gets a `missed` event and the remaining events.
    let last = seen.last().unwrap().id;
    let mut late = events_after(seen[0].id.unwrap()).subscribe().await;
    assert_eq!(late.last_id, last);
    let received = late.take(2).await;
    assert_eq!((received[0].id, &*received[0].kind), (None, "missed"));
    assert_eq!(&*received[1].kind, "message.created");
    // A client that saw all removed events missed nothing.
    assert_eq!(events_after(last.unwrap()).subscribe().await.take(1).await[0], received[1]);

    // With no events left, a stream starts after the last one that existed.
    app.advance(TimeDelta::days(31));
    events::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(left).await, 0);
    let mut from_now_on =
        app.get(&format!("{CONVERSATIONS}/{id}/events")).key(&key).subscribe().await;
    assert_eq!(from_now_on.last_id, received[1].id);
    assert_eq!(post_message(&app, &key, id).await, 201);
    assert_eq!(&*from_now_on.next().await.unwrap().kind, "message.created");
    let messages =
        app.get(&format!("{CONVERSATIONS}/{id}/messages")).key(&key).send().await.expect(200);
    assert_eq!(messages.as_array().unwrap().len(), 5, "the messages are kept");

    // New events in a long inactive conversation are not old.
    let ada = app.user("ada").await;
    let idle = app.conversation(&key, &[ada]).await;
    app.advance(TimeDelta::days(31));
    events::forget_old(&app.state).await.unwrap();
    app.delete(&format!("/api/v1/users/{ada}")).key(&key).send().await.expect(204);
    events::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(left).await, 1, "the removal of the participant is streamed");
    let shown = app.get(&format!("{CONVERSATIONS}/{idle}")).key(&key).send().await.expect(200);
    assert_ne!(shown["updated_at"], shown["created_at"]);
}

#[apply(without_database!)]
fn retention_days_is_a_whole_number() {
    let read = |days: &str| {
        let variables = HashMap::from([("RETENTION_DAYS".to_owned(), days.to_owned())]);
        Config::from_variables(variables).map(|config| config.retention.conversations)
    };
    assert_eq!(read(""), Ok(None));
    assert_eq!(read("1"), Ok(Some(TimeDelta::days(1))));
    assert_eq!(read("36500"), Ok(Some(TimeDelta::days(36_500))));
    for wrong in ["0", "-1", "36501", "1.5", "a year", "99999999999999999999"] {
        let problems = read(wrong).unwrap_err().to_string();
        assert!(problems.contains("RETENTION_DAYS must be"), "{problems}");
    }
}
