//! Clients that stall, flood or send garbage cost the server little and do not affect other
//! clients.

use super::calls::{Caller, MASTER, PLAIN};
use super::queues::Queues;
use crate::support::process::{Server, free_port};
use crate::support::{Backend, measured, scale};
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Deadlines of a stalled connection, in seconds: for the head, and without progress.
const HEADER: u64 = 2;
const IDLE: u64 = 3;
/// Deadline of a request, in seconds. Registrations also take a while on a busy machine.
fn request() -> u64 {
    scale(8, 4)
}
/// Tolerance for a busy machine. The long form has the machine to itself.
fn slack() -> Duration {
    scale(Duration::from_secs(40), Duration::from_secs(2))
}

async fn strict(backend: &Backend, more: &[(&str, &str)]) -> Server {
    let deadlines = [
        ("HEADER_TIMEOUT_SECONDS", HEADER.to_string()),
        ("REQUEST_TIMEOUT_SECONDS", request().to_string()),
        ("IDLE_TIMEOUT_SECONDS", IDLE.to_string()),
    ];
    let mut variables: Vec<(&str, &str)> = PLAIN.to_vec();
    variables.extend(deadlines.iter().map(|(name, value)| (*name, value.as_str())));
    variables.extend(more);
    Server::start(backend, &variables).await
}

/// A way to hold a connection open without progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stall {
    Silent,
    HalfHead,
    SlowBody,
    NeverReading,
}

impl Stall {
    const ALL: [Self; 4] = [Self::Silent, Self::HalfHead, Self::SlowBody, Self::NeverReading];

    /// The time after which the server closes the connection.
    fn deadline(self) -> Duration {
        Duration::from_secs(match self {
            Self::Silent | Self::HalfHead => HEADER,
            // The server responds with a 408 and does not wait for the rest of the body.
            Self::SlowBody => request(),
            Self::NeverReading => IDLE,
        })
    }

    /// Stalls until the server closes the connection. Returns the time since the last progress.
    async fn run(self, address: &str, queues: &Queues) -> Duration {
        let mut stream = connect_narrowly(address).await;
        let began = Instant::now();
        match self {
            Self::Silent => {}
            Self::HalfHead => {
                let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
            }
            Self::SlowBody => {
                let head =
                    "POST /api/v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n{";
                let _ = stream.write_all(head.as_bytes()).await;
                let (mut reading, mut writing) = stream.into_split();
                let dripping = async {
                    while writing.write_all(b" ").await.is_ok() {
                        sleep(Duration::from_millis(300)).await;
                    }
                };
                let mut answer = vec![];
                tokio::select! {
                    () = dripping => {}
                    _ = reading.read_to_end(&mut answer) => {}
                }
                let answer = String::from_utf8_lossy(&answer);
                assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
                return began.elapsed();
            }
            Self::NeverReading => {
                let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n";
                let requests = request.repeat(100);
                let port = stream.local_addr().unwrap().port();
                queues.begin(port);
                let writing = async {
                    while stream.write_all(requests.as_bytes()).await.is_ok() {}
                    std::future::pending::<()>().await;
                };
                return tokio::select! { stood = queues.end(port) => stood, () = writing => began.elapsed() };
            }
        }
        let _ = stream.read_to_end(&mut vec![]).await;
        began.elapsed()
    }
}

/// Connects with a small receive buffer, so that the server has to buffer most of a response.
async fn connect_narrowly(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}

/// The latencies of repeated requests to `/health`.
async fn latencies(address: String, stop: CancellationToken) -> Vec<Duration> {
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let (mut all, mut answer) = (vec![], [0; 4096]);
    while !stop.is_cancelled() {
        let began = Instant::now();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{read} bytes");
        all.push(began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    all.sort_unstable();
    all
}

/// Registers users at this rate. Returns their number.
async fn register(caller: Caller, per_minute: u32, stop: CancellationToken) -> u32 {
    let (mut calls, mut n) = (JoinSet::new(), 0);
    let mut ticks = tokio::time::interval(Duration::from_mins(1) / per_minute);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        n += 1;
        let caller = caller.clone();
        calls.spawn(async move { caller.register(&format!("user{n}")).await.expect(201) });
    }
    calls.join_all().await;
    n
}

#[apply(on_both!)]
async fn stalled_sockets_are_closed_at_their_deadlines_without_affecting_other_clients(
    backend: Backend,
) {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let server = strict(&backend, &[]).await;
    let stop = CancellationToken::new();
    let health = tokio::spawn(latencies(server.address(), stop.clone()));
    let rate = scale(60, 1000);
    let registering = tokio::spawn(register(Caller::of(&server), rate, stop.clone()));
    let (each, rounds) = scale((50, 1), (500, 8));
    let queues = Queues::default();
    let sampling = tokio::spawn(queues.clone().monitor(server.address().parse().unwrap()));
    let (mut most, mut late) = (0, Duration::ZERO);
    for _ in 0..rounds {
        let mut stalled = JoinSet::new();
        let mut open = HashMap::from(Stall::ALL.map(|stall| (stall, each)));
        for _ in 0..each {
            for stall in Stall::ALL {
                let (address, queues) = (server.address(), queues.clone());
                stalled.spawn(async move { (stall, stall.run(&address, &queues).await) });
            }
        }
        let closing = async {
            while let Some(closed) = stalled.join_next().await {
                let (stall, took) = closed.unwrap();
                *open.get_mut(&stall).unwrap() -= 1;
                late = late.max(took.saturating_sub(stall.deadline()));
                assert!(took < stall.deadline() + slack(), "{stall:?} was closed after {took:?}");
                most = most.max(server.resident());
            }
        };
        let closed = timeout(Duration::from_mins(1), closing).await;
        assert!(closed.is_ok(), "still open: {open:?}");
    }
    sampling.abort();
    stop.cancel();
    let (health, registered) = (health.await.unwrap(), registering.await.unwrap());
    let p99 = health[health.len() * 99 / 100];
    assert!(p99 < scale(Duration::from_secs(3), Duration::from_millis(100)), "p99 is {p99:?}");
    assert!(most < 300 * 1024, "{most} kB of memory");
    let few = async || server.open_files() < 100;
    let end = Instant::now() + slack();
    while !few().await {
        assert!(Instant::now() < end, "{} files are open", server.open_files());
        sleep(Duration::from_millis(50)).await;
    }
    measured(&format!(
        "abuse, {}: {rounds} rounds of {} stalled sockets, {registered} registrations at {rate} a \
         minute: /health p99 {p99:.1?} of {}, {} MB resident at most, closed at most {late:.1?} \
         after the deadline",
        if backend.is_sqlite() { "sqlite" } else { "postgres" },
        each * Stall::ALL.len(),
        health.len(),
        most / 1024
    ));
}

/// Sends a body of so many megabytes with an invalid key as fast as possible, and reads the start
/// of the response concurrently.
async fn flood(address: String, megabytes: usize, is_chunked: bool) -> String {
    let stream = TcpStream::connect(&address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let length = megabytes * 1024 * 1024;
    let framing = if is_chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {length}")
    };
    let head = format!(
        "POST /api/v1/conversations HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: bad\r\n\
         Content-Type: application/json\r\n{framing}\r\n\r\n"
    );
    let sending = async {
        writing.write_all(head.as_bytes()).await?;
        let mut chunk = vec![b'x'; 64 * 1024];
        if is_chunked {
            chunk.splice(0..0, *b"10000\r\n");
            chunk.extend_from_slice(b"\r\n");
        }
        for _ in 0..length / (64 * 1024) {
            writing.write_all(&chunk).await?;
        }
        std::io::Result::Ok(())
    };
    let mut answer = vec![0; 32];
    let (_, read) = tokio::join!(sending, reading.read_exact(&mut answer));
    read.map_or_else(|error| error.to_string(), |_| String::from_utf8_lossy(&answer).into_owned())
}

#[apply(on_sqlite!)]
async fn two_hundred_megabytes_with_a_bad_key_cost_no_memory(backend: Backend) {
    let server = strict(&backend, &[]).await;
    flood(server.address(), 1, false).await;
    let before = server.resident();
    let (mut floods, stop) = (JoinSet::new(), CancellationToken::new());
    for n in 0..scale(4, 32) {
        floods.spawn(flood(server.address(), 200, n % 2 == 0));
    }
    let sampling = async {
        let mut most = before;
        while !stop.is_cancelled() {
            most = most.max(server.resident());
            sleep(Duration::from_millis(5)).await;
        }
        most
    };
    let flooding = async {
        let answers = floods.join_all().await;
        stop.cancel();
        answers
    };
    let (most, answers) = tokio::join!(sampling, flooding);
    for answer in &answers {
        assert!(answer.starts_with("HTTP/1.1 401 Unauthorized"), "{answer}");
    }
    let grown = most - before;
    assert!(grown < 32 * 1024, "{grown} kB more");
    measured(&format!(
        "abuse: {} bodies of 200 MB at once with a bad key: {} kB more memory, all answered 401",
        answers.len(),
        grown
    ));
}

/// Sends a request and reads nothing. Returns the time until the server closes the connection.
async fn never_read(address: String, path: String) -> Duration {
    let mut stream = connect_narrowly(&address).await;
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {MASTER}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    // Writes to a connection that the server has closed fail.
    while stream.write_all(b" ").await.is_ok() {
        sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

#[apply(on_sqlite!)]
async fn clients_that_never_read_long_responses_are_disconnected_and_cost_little(backend: Backend) {
    // Creating the long content takes a while.
    let server = strict(&backend, &[("REQUEST_TIMEOUT_SECONDS", "60")]).await;
    let caller = Caller::of(&server);
    let ada = caller.register("ada").await.expect(201)["id"].as_i64().unwrap();
    let conversation = json!({"title": "a talk", "participant_ids": [ada]});
    let conversation = caller.post("/api/v1/conversations", conversation).send().await.expect(201);
    let conversation = format!("/api/v1/conversations/{}", conversation["id"]);
    let send = async |n: usize| {
        // Few distinct characters in many bytes, to keep the work of the search index small.
        let body = json!({"role": "user", "content": "🐙".repeat(50_000)});
        let messages = vec![body; n];
        let messages = json!({"messages": messages});
        caller.post(&format!("{conversation}/messages/batch"), messages).send().await.expect(201);
    };
    for _ in 0..5 {
        send(3).await;
    }
    let before = server.resident();
    let clients = scale(16, 19);
    let (mut reading, events) = (JoinSet::new(), format!("{conversation}/events"));
    for path in [
        format!("{conversation}/export"),
        format!("{conversation}/messages?limit=1000"),
        events.clone(),
    ] {
        for _ in 0..clients {
            reading.spawn(never_read(server.address(), path.clone()));
        }
    }
    // New events for the streams.
    sleep(Duration::from_millis(300)).await;
    for _ in 0..5 {
        send(3).await;
    }
    let mut longest = Duration::ZERO;
    let most = async {
        let mut most = 0;
        while let Some(took) = reading.join_next().await {
            longest = longest.max(took.unwrap());
            most = most.max(server.resident());
        }
        most
    };
    let patience = Duration::from_secs(IDLE) + 2 * slack();
    let most = timeout(patience, most).await.expect("every client is disconnected");
    assert!(most < 300 * 1024, "{most} kB of memory");
    // Their stream slots are free again.
    for _ in 0..20 {
        let answer = caller.get(&events).open().await;
        assert_eq!(answer.status(), 200);
    }
    measured(&format!(
        "abuse: {} clients that never read an export, a list and a stream: cut off after {longest:.1?} \
         at most, {} MB resident, {} MB before",
        3 * clients,
        most / 1024,
        before / 1024
    ));
}

#[apply(on_sqlite!)]
async fn a_million_client_addresses_take_bounded_memory(backend: Backend) {
    const BATCH: u32 = 50;
    let metrics = format!("127.0.0.1:{}", free_port());
    let variables = [
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("METRICS_ADDR", &metrics),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "error"),
    ];
    let server = Server::start(&backend, &variables).await;
    let (clients, tasks) = (scale(8_000, 1_000_000), 8);
    let before = server.resident();
    let mut sending = JoinSet::new();
    for task in 0..tasks {
        let address = server.address();
        sending.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let (first, last) = (clients / tasks * task, clients / tasks * (task + 1));
            for batch in (first..last).step_by(BATCH as usize) {
                let mut requests = String::new();
                for n in batch..batch + BATCH {
                    let ip = std::net::Ipv4Addr::from_bits(0x0b00_0000 + n);
                    let key = if n % 2 == 0 { "Octopus-API-Key: no-such-key\r\n" } else { "" };
                    let head = "GET /api/v1/users HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: ";
                    write!(requests, "{head}{ip}\r\n{key}\r\n").unwrap();
                }
                stream.write_all(requests.as_bytes()).await.unwrap();
                let (mut answers, mut buffer, mut text) = (0, vec![0; 64 * 1024], String::new());
                while answers < BATCH as usize {
                    let read = stream.read(&mut buffer).await.unwrap();
                    assert!(read > 0, "closed");
                    text += &String::from_utf8_lossy(&buffer[..read]);
                    answers = text.matches("\r\n\r\n{\"detail\":").count();
                }
                assert!(!text.contains("HTTP/1.1 5"), "{text}");
            }
        });
    }
    sending.join_all().await;
    let grown = server.resident().saturating_sub(before);
    let text = reqwest::get(format!("http://{metrics}/metrics")).await.unwrap();
    let text = text.text().await.unwrap();
    let mut remembered = 0;
    for policy in ["client", "auth-failures"] {
        let line = format!("octopus_rate_limit_buckets{{policy=\"{policy}\"}} ");
        let size = text.lines().find_map(|l| l.strip_prefix(&line));
        let size: u32 = size.unwrap_or_else(|| panic!("{line}\n{text}")).parse().unwrap();
        assert!((1..=100_001).contains(&size), "{policy}: {size}");
        remembered += size;
    }
    assert!(grown < 100 * 1024, "{grown} kB more");
    measured(&format!(
        "abuse: {clients} client addresses: {remembered} buckets remembered, {} MB more memory",
        grown / 1024
    ));
}
