//! Connections, deadlines and shutdown.

use crate::support::{Backend, TestApp};
use octopus::core::config::PasswordCost;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const SHORT: [(&str, &str); 5] = [
    ("RATE_LIMIT_ENABLED", "false"),
    ("HEADER_TIMEOUT_SECONDS", "1"),
    ("IDLE_TIMEOUT_SECONDS", "2"),
    ("REQUEST_TIMEOUT_SECONDS", "2"),
    ("SHUTDOWN_GRACE_SECONDS", "2"),
];

async fn connect(app: &TestApp, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// The bytes until the server closes the connection, and the time that takes.
async fn rest(mut stream: TcpStream) -> (String, Duration) {
    let started = Instant::now();
    let mut bytes = vec![];
    let reading = timeout(Duration::from_secs(15), stream.read_to_end(&mut bytes));
    // A reset counts as a close.
    let _ = reading.await.expect("the server closes the connection");
    (String::from_utf8_lossy(&bytes).into_owned(), started.elapsed())
}

#[apply(on_both!)]
async fn a_connection_that_sends_no_complete_head_is_closed(backend: Backend) {
    let app = TestApp::with(&backend, &SHORT).await;
    for half in ["", "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let (_, took) = rest(connect(&app, half).await).await;
        assert!((800..4000).contains(&took.as_millis()), "{half:?} was closed after {took:?}");
    }
}

#[apply(on_both!)]
async fn an_idle_connection_is_closed(backend: Backend) {
    let app = TestApp::with(&backend, &SHORT).await;
    let stream = connect(&app, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (text, took) = rest(stream).await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!((800..4000).contains(&took.as_millis()), "closed after {took:?}");
}

#[apply(on_both!)]
async fn a_body_that_arrives_too_slowly_is_a_408(backend: Backend) {
    let app = TestApp::with(&backend, &SHORT).await;
    let head = "POST /api/v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"em";
    let (text, took) = rest(connect(&app, head).await).await;
    assert!(text.starts_with("HTTP/1.1 408 Request Timeout"), "{text}");
    assert!(text.contains(r#"{"detail":"The request body took too long to arrive"}"#), "{text}");
    assert!((1800..9000).contains(&took.as_millis()), "answered after {took:?}");
}

#[apply(on_both!)]
async fn a_client_that_never_reads_is_disconnected(backend: Backend) {
    let app = TestApp::with(&backend, &SHORT).await;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    // Unread responses fill the buffers until the write deadline passes.
    let request = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    let writing = async {
        loop {
            if stream.write_all(request.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), writing).await.expect("the server closes the connection");
}

#[apply(on_both!)]
async fn a_connection_over_the_limit_gets_a_503(backend: Backend) {
    let variables = [SHORT.as_slice(), &[("MAX_CONNECTIONS", "3")]].concat();
    let app = TestApp::with(&backend, &variables).await;
    let mut held = vec![];
    for _ in 0..3 {
        let mut stream = connect(&app, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(stream.read(&mut [0; 16]).await.unwrap() > 0);
        held.push(stream);
    }
    let (text, _) = rest(connect(&app, "").await).await;
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable"), "{text}");
    drop(held);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(app.get("/health").send().await.status, 200, "places become free again");
}

#[apply(on_both!)]
async fn one_address_cannot_hold_all_connections_and_a_trusted_proxy_can(backend: Backend) {
    const OWN: [(&str, &str); 2] = [("MAX_CONNECTIONS", "7"), ("MAX_CONNECTIONS_PER_CLIENT", "3")];
    for (proxies, most, status) in [("", 3, "429 Too Many Requests"), ("127.0.0.1", 7, "503")] {
        let variables = [SHORT.as_slice(), &OWN, &[("TRUSTED_PROXIES", proxies)]].concat();
        let app = TestApp::with(&backend, &variables).await;
        let mut held = vec![];
        for _ in 0..most {
            let mut stream = connect(&app, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert!(stream.read(&mut [0; 16]).await.unwrap() > 0);
            held.push(stream);
        }
        let (text, _) = rest(connect(&app, "").await).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
        drop(held);
        sleep(Duration::from_millis(200)).await;
        assert_eq!(app.get("/health").send().await.status, 200, "places become free again");
        app.stop().await.unwrap();
    }
}

#[apply(on_both!)]
async fn shutdown_lets_requests_finish_and_stalled_sockets_do_not_delay_it(backend: Backend) {
    let variables = [SHORT.as_slice(), &[("SHUTDOWN_GRACE_SECONDS", "8")]].concat();
    let app = TestApp::with_cost(&backend, &variables, PasswordCost::default()).await;
    let mut stalled = vec![];
    for _ in 0..10 {
        stalled.push(connect(&app, "POST /api/v1/users HTTP/1.1\r\nHost: x\r\n").await);
    }
    // Registrations hash passwords, so they are still running at the shutdown.
    let registrations: Vec<_> = (0..10)
        .map(|n| {
            let (name, email) = (format!("user{n}"), format!("user{n}@example.com"));
            let body = json!({"username": name, "email": email, "password": "correct horse"});
            tokio::spawn(app.post("/api/v1/users", body).send())
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    let (started, address) = (Instant::now(), app.address);
    app.stop().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(9), "stopped after {:?}", started.elapsed());
    for registration in registrations {
        assert_eq!(registration.await.unwrap().status, 201);
    }
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}

#[apply(on_both!)]
async fn a_write_completes_after_its_client_disconnects(backend: Backend) {
    let unlimited = [("RATE_LIMIT_ENABLED", "false")];
    let app = TestApp::with_cost(&backend, &unlimited, PasswordCost::default()).await;
    let body = r#"{"username":"gone","email":"gone@example.com","password":"correct horse"}"#;
    let length = body.len();
    let head =
        format!("POST /api/v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    let stream = connect(&app, &(head + body)).await;
    while app.state.passwords.queue() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    drop(stream);
    for _ in 0..100 {
        if app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM users").await == 1 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("the registration was cut off");
}

#[apply(on_both!)]
async fn last_used_is_written_at_shutdown(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.get("/api/v1/api-keys/me").key(&key).send().await.expect(200);
    app.stop().await.unwrap();
    let db = backend.open().await;
    let sql = "SELECT last_used_ip FROM api_keys WHERE last_used_at IS NOT NULL";
    let (ip,): (String,) = octopus::db::query(&db, sql).one().await.unwrap();
    assert_eq!(ip, "127.0.0.1");
    db.close().await;
}

#[apply(on_both!)]
async fn metrics_are_on_a_separate_listener(backend: Backend) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let app = TestApp::with(&backend, &[("METRICS_ADDR", &address)]).await;
    // The metrics listener is up once the server responds.
    app.get("/api/v1/users/1")
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
    app.get("/api/v1/users/1").key("nonsense").send().await;
    app.get("/metrics").send().await.refused(404, "Not Found");
    let text =
        reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
    for expected in [
        r#"octopus_http_requests_total{method="GET",route="/api/v1/users/{user_id}",status="401"}"#,
        r#"octopus_http_request_duration_seconds_bucket{method="GET",route="/api/v1/users/{user_id}",status="401",le="0.001"}"#,
        r#"octopus_refusals_total{reason="key_invalid"}"#,
        r#"octopus_queue_length{queue="webhooks"}"#,
        r#"octopus_queue_length{queue="usage"}"#,
        "octopus_cached_keys ",
        "octopus_memory_budget_used_bytes ",
        r#"octopus_rate_limit_buckets{policy="client"}"#,
        "octopus_db_pool_connections{pool=",
        "octopus_connections ",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert!(!backend.is_sqlite() || text.contains("octopus_db_wal_bytes "), "{text}");
}
