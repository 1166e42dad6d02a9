//! Event streams with concurrent writers, slow readers and several processes.

use crate::support::process::Server;
use crate::support::{Backend, Call, Event, Events, TestApp};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

const MASTER: &str = "a-master-key-that-is-long-enough-0123456789";
/// The maximum length of a message.
const MAX_CONTENT: usize = 100_000;

fn events(id: i64) -> String {
    format!("/api/v1/conversations/{id}/events")
}

#[apply(on_both!)]
async fn a_reader_that_reconnects_misses_and_repeats_no_event(backend: Backend) {
    const WRITERS: usize = 8;
    const EACH: usize = 60;
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let path = format!("/api/v1/conversations/{id}/messages");
    let request = |last: Option<i64>| {
        let call = app.get(&events(id)).key(&key);
        match last {
            Some(last) => call.header("Last-Event-ID", last.to_string()),
            None => call,
        }
    };
    let mut stream = request(None).subscribe().await;
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
        // Disconnects at random, possibly in the middle of a batch.
        if rand::random_ratio(1, 15) {
            let last = seen.last().and_then(|event| event.id).or(stream.last_id);
            stream = request(last).subscribe().await;
        }
        seen.push(stream.next().await.expect("the stream stays open"));
    }
    writers.join_all().await;
    let quiet = timeout(Duration::from_millis(500), stream.next()).await;
    assert!(quiet.is_err(), "one too many: {quiet:?}");
    let seqs: Vec<i64> = seen.iter().map(|event| event.data["seq"].as_i64().unwrap()).collect();
    let all: Vec<i64> = (1..).take(WRITERS * EACH).collect();
    assert_eq!(seqs, all, "no event missed or repeated, in the order of seq");
    assert!(seen.is_sorted_by(|a, b| a.id < b.id));
}

#[apply(on_both!)]
async fn two_servers_see_each_other_s_events(backend: Backend) {
    let here = TestApp::new(&backend).await;
    let there = TestApp::new(&backend).await;
    let key = here.admin().await;
    let id = here.conversation(&key, &[]).await;
    // Wait until both servers listen for changes.
    sleep(Duration::from_millis(500)).await;
    let mut stream = there.get(&events(id)).key(&key).subscribe().await;
    let path = format!("/api/v1/conversations/{id}/messages");
    // On SQLite the other process polls every few seconds.
    let (times, patience) = if backend.is_sqlite() { (1, 9000) } else { (10, 900) };
    for n in 0..times {
        let body = json!({"role": "user", "content": n.to_string()});
        let started = Instant::now();
        here.post(&path, body).key(&key).send().await.expect(201);
        let event = stream.next().await.unwrap();
        assert_eq!(event.data["content"], n.to_string());
        assert!(
            started.elapsed() < Duration::from_millis(patience),
            "it took {:?}",
            started.elapsed()
        );
    }
    here.delete(&format!("/api/v1/conversations/{id}")).key(&key).send().await.expect(204);
    stream.ends("conversation_gone").await;
}

/// The sequence numbers of the messages in `events`.
fn seqs(events: &[Event]) -> Vec<i64> {
    events.iter().map(|event| event.data["seq"].as_i64().unwrap()).collect()
}

#[apply(on_both!)]
async fn a_stalled_reader_is_dropped_and_can_resume(backend: Backend) {
    const MESSAGES: usize = 150;
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("IDLE_TIMEOUT_SECONDS", "2")];
    let app = TestApp::with(&backend, &variables).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let mut stream = app.get(&events(id)).key(&key).subscribe().await;
    let path = format!("/api/v1/conversations/{id}/messages");
    for _ in 0..MESSAGES {
        let body = json!({"role": "user", "content": "x".repeat(MAX_CONTENT)});
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
    let resumed =
        app.get(&events(id)).key(&key).header("Last-Event-ID", stream.last_id.unwrap().to_string());
    seen.extend(resumed.subscribe().await.take(MESSAGES - seen.len()).await);
    assert!(seqs(&seen).into_iter().eq((1..).take(MESSAGES)), "{:?}", seqs(&seen));
}

/// A request with the master key to a server in its own process.
fn call(client: &reqwest::Client, method: reqwest::Method, url: String) -> Call {
    Call::new(client.request(method, url)).key(MASTER)
}

#[apply(on_both!)]
async fn stalled_readers_use_no_memory_and_miss_no_event(backend: Backend) {
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
    let post_message = async || {
        let body = json!({"role": "user", "content": "x".repeat(MAX_CONTENT)});
        post(&path).json(body).send().await.expect(201);
    };
    // Warm up: memory that any server needs for this is not counted.
    for _ in 0..20 {
        post_message().await;
    }
    let mut streams: Vec<Events> = vec![];
    for _ in 0..15 {
        let request = call(&client, reqwest::Method::GET, server.url(&events(id)));
        streams.push(request.subscribe().await);
    }
    let before = server.resident();
    for _ in 0..MESSAGES {
        post_message().await;
    }
    // The unread events would take 225 MB.
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 40_000, "{grown} kB more are resident");
    let received = streams[0].take(MESSAGES).await;
    assert!(seqs(&received).into_iter().eq((21..).take(MESSAGES)), "{:?}", seqs(&received));
}

#[apply(on_both!)]
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
    let stream = Call::new(client.get(&url)).subscribe().await;
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
