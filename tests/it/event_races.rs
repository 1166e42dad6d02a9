//! Streams while others write, read slowly, or live in another process.

use crate::support::{Backend, Event, TestApp, tests};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

tests!(on_both: [
    a_reader_that_connects_again_and_again_misses_and_doubles_nothing,
    two_servers_see_each_other_s_events,
]);

fn events(id: i64) -> String {
    format!("/api/v1/conversations/{id}/events")
}

async fn a_reader_that_connects_again_and_again_misses_and_doubles_nothing(backend: Backend) {
    const WRITERS: usize = 8;
    const EACH: usize = 60;
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let path = format!("/api/v1/conversations/{id}/messages");
    let watch = |last: Option<i64>| {
        let call = app.get(&events(id)).key(&key);
        match last {
            Some(last) => call.header("Last-Event-ID", last.to_string()),
            None => call,
        }
    };
    let mut stream = watch(None).watch().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let calls: Vec<_> = (0..EACH)
            .map(|n| {
                let body = json!({"role": "user", "content": format!("{writer}:{n}")});
                app.post(&path, body).key(&key)
            })
            .collect();
        writers.spawn(async move {
            for call in calls {
                call.send().await.expect(201);
            }
        });
    }
    let mut seen: Vec<Event> = vec![];
    while seen.len() < WRITERS * EACH {
        // At random, the line is cut, be it in the middle of a batch.
        if rand::random_ratio(1, 15) {
            let last = seen.last().and_then(|event| event.id).or(stream.last_id);
            stream = watch(last).watch().await;
        }
        seen.push(stream.next().await.expect("the stream goes on"));
    }
    writers.join_all().await;
    let quiet = timeout(Duration::from_millis(500), stream.next()).await;
    assert!(quiet.is_err(), "one too many: {quiet:?}");
    let seqs: Vec<i64> = seen.iter().map(|event| event.data["seq"].as_i64().unwrap()).collect();
    let all: Vec<i64> = (1..).take(WRITERS * EACH).collect();
    assert_eq!(seqs, all, "0 missed, 0 doubled, in the order of seq");
    assert!(seen.is_sorted_by(|a, b| a.id < b.id));
}

async fn two_servers_see_each_other_s_events(backend: Backend) {
    let here = TestApp::new(&backend).await;
    let there = TestApp::new(&backend).await;
    let key = here.admin().await;
    let id = here.conversation(&key, &[]).await;
    // Until both listen.
    sleep(Duration::from_millis(500)).await;
    let mut stream = there.get(&events(id)).key(&key).watch().await;
    let path = format!("/api/v1/conversations/{id}/messages");
    // On SQLite the other process looks every few seconds.
    let (times, patience) = if backend.is_sqlite() { (1, 9000) } else { (10, 900) };
    for n in 0..times {
        let body = json!({"role": "user", "content": n.to_string()});
        let started = Instant::now();
        here.post(&path, body).key(&key).send().await.expect(201);
        let told = stream.next().await.unwrap();
        assert_eq!(told.data["content"], n.to_string());
        assert!(
            started.elapsed() < Duration::from_millis(patience),
            "it took {:?}",
            started.elapsed()
        );
    }
    here.delete(&format!("/api/v1/conversations/{id}")).key(&key).send().await.expect(204);
    stream.ends("conversation_gone").await;
}
