//! Hours of mixed load leak no memory, files or log space.

use super::load::{self, Load, Until};
use crate::support::process::Server;
use crate::support::{Backend, Call, measured, scale};
use octopus::db::DbOptions;
use reqwest::Method;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Concurrent writers and readers.
const WRITERS: usize = 8;
const READERS: usize = 8;
/// Pause of a client between two requests, so that the load is steady and not a flood.
const REST: Duration = Duration::from_millis(20);

/// Resources of a server at one time.
struct Sample {
    resident_kilobytes: u64,
    open_files: usize,
    wal_bytes: u64,
}

/// Counts of the readers.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    events: AtomicU64,
}

fn sample(server: &Server, folder: &Path) -> Sample {
    let wal = fs::metadata(folder.join("octopus.db-wal"));
    Sample {
        resident_kilobytes: server.resident(),
        open_files: server.open_files(),
        wal_bytes: wal.map_or(0, |wal| wal.len()),
    }
}

/// Sends reads of every kind until `stop`. A 5xx is a failure.
async fn read(url: Arc<str>, key: Arc<str>, seen: Arc<Seen>, stop: CancellationToken) {
    // Drops idle connections early, so that no request uses one that the server is closing.
    let client = reqwest::Client::builder().no_proxy().pool_idle_timeout(Duration::from_secs(2));
    let client = client.build().unwrap();
    let paths = [
        "/api/v1/api-keys/me",
        "/api/v1/api-keys?limit=20",
        "/api/v1/api-keys/audit-logs?limit=50",
        "/api/v1/users?limit=20",
        "/api/v1/conversations?limit=20&message_limit=5&order=recent",
        "/api/v1/conversations/search?q=hello",
        "/api/v1/admin/stats",
        "/api/v1/no-such-route",
        "/health",
        "/ready",
    ];
    for path in paths.into_iter().cycle() {
        if stop.is_cancelled() {
            return;
        }
        let call = Call::new(client.request(Method::GET, format!("{url}{path}")));
        let answer = call.key(&key).send().await;
        assert!(answer.status < 500, "{path}: {answer:?}");
        // A request with an invalid key.
        let guess = Call::new(client.request(Method::GET, format!("{url}/api/v1/users")));
        guess.key("nonsense").send().await.expect(401);
        seen.answers.fetch_add(2, Ordering::Relaxed);
        sleep(REST).await;
    }
}

/// Subscribes to a conversation, sends messages to it, and reconnects from time to time.
async fn subscribe(
    url: Arc<str>,
    key: Arc<str>,
    id: i64,
    seen: Arc<Seen>,
    stop: CancellationToken,
) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let path = format!("{url}/api/v1/conversations/{id}");
    while !stop.is_cancelled() {
        let subscription = Call::new(client.get(format!("{path}/events"))).key(&key);
        let mut events = subscription.subscribe().await;
        for n in 0..100 {
            if stop.is_cancelled() {
                return;
            }
            let body = json!({"role": "assistant", "content": format!("hello {n}")});
            let message = Call::new(client.post(format!("{path}/messages"))).key(&key).json(body);
            message.send().await.expect(201);
            assert_eq!(&*events.next().await.expect("another event").kind, "message.created");
            seen.events.fetch_add(1, Ordering::Relaxed);
            sleep(REST).await;
        }
    }
}

#[apply(on_both!)]
async fn mixed_load_leaks_no_memory_files_or_log_space(backend: Backend) {
    let server = Server::start(&backend, &[("RATE_LIMIT_ENABLED", "false")]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let first = Call::new(client.post(server.url("/bootstrap"))).send().await.expect(200);
    let key: Arc<str> = first["api_key"].as_str().unwrap().into();
    let body = json!({"title": "watched", "participant_ids": []});
    let conversation =
        Call::new(client.post(server.url("/api/v1/conversations"))).key(&key).json(body);
    let conversation = conversation.send().await.expect(201)["id"].as_i64().unwrap();

    let seconds = std::env::var("OCTOPUS_SOAK_SECONDS").ok().and_then(|n| n.parse().ok());
    let lasts = scale(8, seconds.unwrap_or(3600));
    let lasts = Duration::from_secs(lasts);
    let (url, seen, stop): (Arc<str>, _, _) =
        (server.url("").into(), Arc::new(Seen::default()), CancellationToken::new());
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(read(url.clone(), key.clone(), seen.clone(), stop.clone()));
    }
    readers.spawn(subscribe(url.clone(), key.clone(), conversation, seen.clone(), stop.clone()));
    let mut load = Load::new(WRITERS, &key).resting(REST);
    let mut samples = vec![];
    let sampling = async {
        let began = Instant::now();
        while began.elapsed() < lasts {
            sleep(lasts / 400).await;
            samples.push(sample(&server, backend.folder()));
        }
        stop.cancel();
    };
    tokio::join!(load.work(&url, Until::Cancelled(stop.clone())), sampling);
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
    assert_eq!(load.unavailable, 0, "writes were answered 503");
    let answers =
        seen.answers.load(Ordering::Relaxed) + u64::try_from(load.acknowledged()).unwrap();

    // Usage in the last quarter must equal usage in the second quarter.
    let quarter = samples.len() / 4;
    let most = |part: &[Sample], of: fn(&Sample) -> u64| part.iter().map(of).max().unwrap();
    let (second, last) = (&samples[quarter..2 * quarter], &samples[3 * quarter..]);
    let memory = |part| most(part, |sample| sample.resident_kilobytes);
    let files = |part| most(part, |sample| sample.open_files as u64);
    let wal = most(&samples, |sample| sample.wal_bytes);
    let log = fs::metadata(server.log_file()).unwrap().len();
    measured(&format!(
        "soak, {}: {lasts:?}, {answers} answers, none 5xx, {} events; resident {} MB in the second \
         quarter, {} MB in the last; files {} and {}; WAL at most {} MB; {} bytes of log an answer",
        backend.kind(),
        seen.events.load(Ordering::Relaxed),
        memory(second) / 1000,
        memory(last) / 1000,
        files(second),
        files(last),
        wal / 1_000_000,
        log / answers
    ));
    let (before, after) = (memory(second), memory(last));
    // Seconds are too short for a leak to show, and the caches still fill.
    let allowance = scale(25_000, 10_000);
    assert!(after < before * 115 / 100 + allowance, "memory grows from {before} to {after} kB");
    assert!(files(last) <= files(second) + 8, "files are left open");
    assert!(wal < 64 * 1024 * 1024, "the WAL has {wal} bytes");
    assert!(log / answers < 1500, "{log} bytes of log for {answers} answers");
    let db = DbOptions::new().open(&backend.url().await.parse().unwrap()).await.unwrap().db;
    load::is_sound(&db).await;
    db.close().await;
    assert_eq!(server.stop().0, Some(0));
}
