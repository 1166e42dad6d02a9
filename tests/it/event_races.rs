//! Streams while others write, read slowly, or live in another process.

use crate::support::process::Server;
use crate::support::{Backend, Call, Event, Events, TestApp, tests};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

tests!(on_both: [
    a_reader_that_connects_again_and_again_misses_and_doubles_nothing,
    two_servers_see_each_other_s_events,
    a_reader_that_stands_still_is_dropped_and_goes_on_from_there,
    readers_that_stand_still_cost_no_memory_and_miss_nothing,
    a_server_ends_its_streams_at_sigterm_and_logs_no_ticket,
]);

const MASTER: &str = "a-master-key-that-is-long-enough-0123456789";
/// As much as a message may have.
const MOST: usize = 100_000;

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

/// The numbers of the messages in `events`.
fn seqs(events: &[Event]) -> Vec<i64> {
    events.iter().map(|event| event.data["seq"].as_i64().unwrap()).collect()
}

async fn a_reader_that_stands_still_is_dropped_and_goes_on_from_there(backend: Backend) {
    const MESSAGES: usize = 150;
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("IDLE_TIMEOUT_SECONDS", "2")];
    let app = TestApp::with(&backend, &variables).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let mut stream = app.get(&events(id)).key(&key).watch().await;
    let path = format!("/api/v1/conversations/{id}/messages");
    for _ in 0..MESSAGES {
        let body = json!({"role": "user", "content": "x".repeat(MOST)});
        app.post(&path, body).key(&key).send().await.expect(201);
    }
    let started = Instant::now();
    while !app.state.live.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(10), "it is not dropped");
        sleep(Duration::from_millis(50)).await;
    }
    let mut seen = vec![];
    while let Some(event) = stream.next().await {
        seen.push(event);
    }
    assert!(!seen.is_empty() && seen.len() < MESSAGES, "{}", seen.len());
    let again =
        app.get(&events(id)).key(&key).header("Last-Event-ID", stream.last_id.unwrap().to_string());
    seen.extend(again.watch().await.take(MESSAGES - seen.len()).await);
    assert!(seqs(&seen).into_iter().eq((1..).take(MESSAGES)), "{:?}", seqs(&seen));
}

/// A request with the master key to a server that is a process of its own.
fn call(client: &reqwest::Client, method: reqwest::Method, url: String) -> Call {
    Call::new(client.request(method, url)).key(MASTER)
}

async fn readers_that_stand_still_cost_no_memory_and_miss_nothing(backend: Backend) {
    const MESSAGES: usize = 150;
    let variables = [
        ("MASTER_API_KEY", MASTER),
        ("RATE_LIMIT_ENABLED", "false"),
        ("IDLE_TIMEOUT_SECONDS", "300"),
    ];
    let server = Server::start(&backend, &variables).await;
    let client = reqwest::Client::new();
    let post = |path: &str| call(&client, reqwest::Method::POST, server.url(path));
    let answer = post("/api/v1/conversations").json(json!({})).send().await.expect(201);
    let id = answer["id"].as_i64().unwrap();
    let path = format!("/api/v1/conversations/{id}/messages");
    let say = async || {
        let body = json!({"role": "user", "content": "x".repeat(MOST)});
        post(&path).json(body).send().await.expect(201);
    };
    // What every server needs for that is not counted.
    for _ in 0..20 {
        say().await;
    }
    let mut streams: Vec<Events> = vec![];
    for _ in 0..15 {
        let watch = call(&client, reqwest::Method::GET, server.url(&events(id)));
        streams.push(watch.watch().await);
    }
    let before = server.resident();
    for _ in 0..MESSAGES {
        say().await;
    }
    // All that nobody has read would be 225 MB.
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 40_000, "{grown} kB more are resident");
    let told = streams[0].take(MESSAGES).await;
    assert!(seqs(&told).into_iter().eq((21..).take(MESSAGES)), "{:?}", seqs(&told));
}

async fn a_server_ends_its_streams_at_sigterm_and_logs_no_ticket(backend: Backend) {
    let variables = [("MASTER_API_KEY", MASTER), ("RUST_LOG", "debug")];
    let server = Server::start(&backend, &variables).await;
    let client = reqwest::Client::new();
    let post = |path: &str| call(&client, reqwest::Method::POST, server.url(path));
    let answer = post("/api/v1/conversations").json(json!({})).send().await.expect(201);
    let id = answer["id"].as_i64().unwrap();
    let answer = post(&format!("{}/ticket", events(id))).send().await.expect(201);
    let ticket = answer["ticket"].as_str().unwrap();
    let url = server.url(&format!("{}?ticket={ticket}", events(id)));
    let stream = Call::new(client.get(&url)).watch().await;
    assert_eq!(Call::new(client.get(&url)).send().await.status, 401);
    assert_eq!(server.events("auth.ticket_invalid").len(), 1);
    let log = server.log_file();
    let (code, took) = server.stop();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "stopped after {took:?}");
    stream.ends("server_stopping").await;
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains(ticket) && !log.contains("octe_"), "a ticket is in the log:\n{log}");
}
