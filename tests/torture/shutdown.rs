//! The shutdown of a busy server.

use crate::support::process::{Server, free_port};
use crate::support::{Backend, Call, measured, scale};
use octopus::db::{DbOptions, query};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

const PASSWORD: &str = "correct horse battery";

fn call(server: &Server, method: Method, path: &str) -> Call {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    Call::new(client.request(method, server.url(path)))
}

/// Opens a connection and sends this text.
async fn sent(server: &Server, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// A request as text.
fn text(method: &str, path: &str, key: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Reads until the server closes. Returns status and body of the response; `None` without one.
async fn answer(mut stream: TcpStream) -> Option<(u16, Value)> {
    let mut bytes = vec![];
    // A reset after the response counts as a close.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).expect(&text)))
}

/// The number of requests in flight, from the metrics.
async fn in_flight(metrics: &str) -> usize {
    let text = reqwest::get(format!("http://{metrics}/metrics")).await.unwrap();
    let text = text.text().await.unwrap();
    let found = text.lines().find_map(|l| l.strip_prefix("octopus_http_requests_in_flight "));
    found.map_or(0, |number| number.parse().unwrap())
}

/// Connections with half-sent requests: the rest of each request and the expected response.
struct Halves(Vec<(TcpStream, String, Value)>);

impl Halves {
    /// Sends the first halves of a hundred requests: conversations, messages and registrations.
    async fn send(server: &Server, key: &str, conversation: i64) -> Self {
        let mut halves = vec![];
        for n in 0..100 {
            let name = format!("late{n}");
            let (path, body, expected) = match n % 5 {
                0 => {
                    let body = json!({"username": name, "email": format!("{name}@example.com"),
                        "password": PASSWORD});
                    ("/api/v1/users".to_owned(), body, json!({"username": name}))
                }
                1 | 2 => {
                    let path = format!("/api/v1/conversations/{conversation}/messages");
                    let body = json!({"role": "user", "content": name});
                    (path, body, json!({"content": name}))
                }
                _ => {
                    let body = json!({"title": name});
                    ("/api/v1/conversations".to_owned(), body.clone(), body)
                }
            };
            let text = text("POST", &path, key, &body);
            let (first, second) = text.split_at(text.len() - 10);
            halves.push((sent(server, first).await, second.to_owned(), expected));
        }
        Self(halves)
    }

    /// Sends the rest of each request and asserts the responses.
    async fn finish(self) {
        let mut answers = JoinSet::new();
        for (mut stream, rest, expected) in self.0 {
            stream.write_all(rest.as_bytes()).await.unwrap();
            answers.spawn(async move { (answer(stream).await, expected) });
        }
        for (answer, expected) in answers.join_all().await {
            let (status, body) = answer.unwrap_or_else(|| panic!("no answer: {expected}"));
            assert_eq!(status, 201, "{body}");
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(&body[name], value, "{body}");
            }
        }
    }
}

/// Opens ten stalled sockets: half a head, half a body, and unread responses.
async fn stalled(server: &Server, key: &str) -> Vec<TcpStream> {
    let mut stalled = vec![];
    let half = text("POST", "/api/v1/conversations", key, &json!({"title": "half"}));
    let unread = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    for n in 0..10 {
        let text = match n {
            0..4 => "POST /api/v1/conversations HTTP/1.1\r\nHost: x\r\n",
            4..7 => &half[..half.len() - 10],
            _ => &unread,
        };
        stalled.push(sent(server, text).await);
    }
    stalled
}

#[apply(on_both!)]
async fn requests_in_flight_at_sigterm_are_finished_and_stalled_sockets_do_not_delay_shutdown(
    backend: Backend,
) {
    let grace = scale(4, 8);
    let metrics = format!("127.0.0.1:{}", free_port());
    let variables = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("METRICS_ADDR", &metrics),
        ("SHUTDOWN_GRACE_SECONDS", &grace.to_string()),
    ];
    let mut server = Server::start(&backend, &variables).await;
    let key = call(&server, Method::POST, "/bootstrap").send().await.expect(200);
    let key = key["api_key"].as_str().unwrap().to_owned();
    let by_key = |method, path: &str| call(&server, method, path).key(&key);
    let conversation = by_key(Method::POST, "/api/v1/conversations").json(json!({})).send().await;
    let conversation = conversation.expect(201)["id"].as_i64().unwrap();
    let user = json!({"username": "ada", "email": "ada@example.com", "password": PASSWORD});
    call(&server, Method::POST, "/api/v1/users").json(user.clone()).send().await.expect(201);
    let login = json!({"username": "ada", "password": PASSWORD});
    let login = call(&server, Method::POST, "/api/v1/users/login").json(login).send().await;
    let token = login.expect(200)["access_token"].as_str().unwrap().to_owned();

    let events = format!("/api/v1/conversations/{conversation}/events");
    let stream = by_key(Method::GET, &events).subscribe().await;
    let mut idle = vec![];
    for _ in 0..8 {
        let mut stream = sent(&server, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        idle.push(stream);
    }
    let stalled = stalled(&server, &key).await;
    let halves = Halves::send(&server, &key, conversation).await;
    // The last use of the session, which only the shutdown writes.
    call(&server, Method::GET, "/api/v1/users/me").session(&token).send().await.expect(200);
    let began = Instant::now();
    while in_flight(&metrics).await < 103 {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", in_flight(&metrics).await);
        sleep(Duration::from_millis(10)).await;
    }

    server.terminate();
    let began = Instant::now();
    // Requests on open connections after SIGTERM: each is applied and gets a response, or neither.
    let mut late = JoinSet::new();
    for (n, mut stream) in idle.into_iter().enumerate() {
        let moment = Duration::from_millis(40 * u64::try_from(n).unwrap());
        let title = format!("after{n}");
        let text = text("POST", "/api/v1/conversations", &key, &json!({"title": title}));
        late.spawn(async move {
            sleep(moment).await;
            let _ = stream.write_all(text.as_bytes()).await;
            (title, answer(stream).await)
        });
    }
    sleep(Duration::from_millis(500)).await;
    assert!(TcpStream::connect(server.address()).await.is_err(), "it takes new connections");
    // A second SIGTERM changes nothing.
    server.terminate();
    sleep(Duration::from_millis(500)).await;
    halves.finish().await;
    let finished = began.elapsed();
    stream.ends("server_stopping").await;
    let late = late.join_all().await;
    let code = server.ended().await;
    let took = began.elapsed();
    assert_eq!(code, Some(0), "{}", server.log());
    let most = Duration::from_secs(grace + scale(6, 1));
    assert!(took < most, "it took {took:?}");
    assert_eq!(server.events("server.stopped").len(), 1);
    drop(stalled);

    if backend.is_sqlite() {
        let log = std::fs::metadata(backend.folder().join("octopus.db-wal"));
        assert_eq!(log.map_or(0, |log| log.len()), 0, "the write-ahead log was not written back");
    }
    let db = DbOptions::new().open(&backend.url().await.parse().unwrap()).await.unwrap().db;
    let titles = "SELECT title FROM conversations WHERE title IS NOT NULL";
    let titles: Vec<(String,)> = query(&db, titles).all().await.unwrap();
    let mut answered = 0;
    for (title, answer) in &late {
        let is_there = titles.iter().any(|(stored,)| stored == title);
        let was_made = answer.as_ref().is_some_and(|(status, _)| *status == 201);
        assert_eq!(is_there, was_made, "{title} {answer:?}");
        answered += usize::from(was_made);
    }
    assert!(!titles.iter().any(|(stored,)| stored == "half"));
    let used = "SELECT CAST(SUM(ok) AS BIGINT) FROM api_key_usage";
    let (used,): (i64,) = query(&db, used).one().await.unwrap();
    // The conversation, the stream, and the hundred. The three requests with half a body may or may
    // not be counted.
    let least = 102 + i64::try_from(answered).unwrap();
    assert!((least..=least + 3).contains(&used), "{used} uses, {least} at least");
    let last = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys WHERE last_used_at IS NOT NULL \
        AND last_used_ip = '127.0.0.1'";
    assert_eq!(query(&db, last).one::<(i64,)>().await.unwrap(), (1,));
    let session = "SELECT CAST(COUNT(*) AS BIGINT) FROM sessions WHERE last_used_at > created_at";
    assert_eq!(query(&db, session).one::<(i64,)>().await.unwrap(), (1,));
    db.close().await;
    measured(&format!(
        "shutdown, {}: 100 of 100 requests in flight were finished {} ms after SIGTERM; 10 stalled \
         sockets; {answered} of 8 requests sent afterwards were answered and happened, the others \
         neither; exit 0 after {} ms of {grace} s of grace",
        backend.kind(),
        finished.as_millis(),
        took.as_millis()
    ));
}
