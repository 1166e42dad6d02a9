//! The binary: command line, logs and signals.

use crate::support::process::{Server, free_port, octopus, octopus_on, output_text};
use crate::support::{AUDIT_KEY, Backend, WEBHOOK_SECRET};
use serde_json::{Value, json};
use std::fs::{self};
use std::io::Write;
use std::process::Command;
use std::time::Duration;
use tokio::time::sleep;

#[apply(on_both!)]
async fn the_server_logs_no_secrets_and_stops_at_sigterm(backend: Backend) {
    let master = "a-master-key-that-is-long-enough-0123456789";
    let variables = [("MASTER_API_KEY", master), ("RATE_LIMIT_AUTH_FAILURES_PER_MINUTE", "2")];
    let server = Server::start(&backend, &variables).await;
    let client = reqwest::Client::new();
    let get =
        |path: &str, key: &str| client.get(server.url(path)).header("Octopus-API-Key", key).send();
    assert_eq!(get("/api/v1/api-keys/me", master).await.unwrap().status(), 200);
    let guess = "guessed-secret-hunter2";
    for status in [401, 401, 429] {
        assert_eq!(get("/api/v1/users", guess).await.unwrap().status(), status);
    }
    let body = serde_json::json!({"name": "narrow", "scopes": "read"});
    let created = client.post(server.url("/api/v1/api-keys")).header("Octopus-API-Key", master);
    let created: Value = created.json(&body).send().await.unwrap().json().await.unwrap();
    let narrow = created["key"].as_str().unwrap();
    assert_eq!(get("/api/v1/admin/stats", narrow).await.unwrap().status(), 403);
    let spoofed = client.get(server.url("/health")).header("X-Forwarded-For", "192.0.2.1");
    assert_eq!(spoofed.send().await.unwrap().status(), 200);

    let check = octopus(backend.folder()).arg("healthcheck").env("PORT", server.port()).status();
    assert!(check.unwrap().success(), "healthcheck");

    assert_eq!(server.events("master_key.registered").len(), 1);
    assert_eq!(server.events("auth.key_invalid").len(), 3);
    assert_eq!(server.events("auth.key_invalid")[0]["client"], "127.0.0.1");
    assert_eq!(server.events("rate_limited")[0]["policy"], "auth-failures");
    assert_eq!(server.events("auth.scope_missing")[0]["scope"], "admin");
    assert_eq!(server.events("proxy.untrusted").len(), 1);
    let answered = server.events("request");
    let stats = answered.iter().find(|e| e["span"]["route"] == "/api/v1/admin/stats").unwrap();
    assert_eq!((&stats["status"], &stats["span"]["method"]), (&403.into(), &"GET".into()));
    assert!(stats["span"]["key_id"].is_i64() && stats["latency_ms"].is_f64(), "{stats}");
    let log = server.log();
    for secret in [master, guess, narrow] {
        assert!(!log.contains(secret), "a secret is in the log:\n{log}");
    }

    let (code, took) = server.stop();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(3), "stopped after {took:?}");
}

#[apply(on_both!)]
async fn warnings_are_logged_before_the_response_and_all_lines_before_the_exit(backend: Backend) {
    let mut server = Server::start(&backend, &[]).await;
    let client = reqwest::Client::new();
    let get = |server: &Server, n: usize| {
        let id = format!("request-{n}");
        let request = client.get(server.url("/api/v1/users")).header("X-Request-Id", id);
        request.header("Octopus-API-Key", "no-key-at-all").send()
    };
    let ids = |server: &Server, event: &str| {
        let lines = server.events(event).into_iter();
        let ids = lines.map(|line| line["span"]["request_id"].as_str().unwrap_or("").to_owned());
        ids.filter(|id| id.starts_with("request-")).collect::<Vec<_>>()
    };
    for n in 0..5 {
        assert_eq!(get(&server, n).await.unwrap().status(), 401);
        assert_eq!(ids(&server, "auth.key_invalid").len(), n + 1);
    }
    // After SIGKILL the server can write nothing more.
    get(&server, 5).await.unwrap();
    server.kill();
    let expected: Vec<String> = (0..6).map(|n| format!("request-{n}")).collect();
    assert_eq!(ids(&server, "auth.key_invalid"), expected);
    server.start_again().await;
    get(&server, 6).await.unwrap();
    server.terminate();
    server.ended().await;
    assert_eq!(ids(&server, "request").last().unwrap(), "request-6");
    assert_eq!(server.events("server.stopped").len(), 1);
}

#[apply(on_both!)]
async fn bootstrap_prints_the_first_key_and_works_once(backend: Backend) {
    let run = async || octopus_on(&backend).await.arg("bootstrap").output().unwrap();
    let first = run().await;
    assert!(first.status.success(), "{first:?}");
    let key = String::from_utf8(first.stdout).unwrap();
    assert!(key.starts_with("octopus_") && key.trim_end().len() == 57, "{key}");
    let second = run().await;
    assert!(!second.status.success() && second.stdout.is_empty());
    assert!(output_text(&second).contains("Bootstrap already completed"), "{second:?}");

    let server = Server::start(&backend, &[]).await;
    let own = reqwest::Client::new().get(server.url("/api/v1/api-keys/me"));
    let own = own.header("Octopus-API-Key", key.trim_end()).send().await.unwrap();
    assert_eq!(own.status(), 200);
}

#[apply(on_both!)]
async fn migrate_creates_the_schema(backend: Backend) {
    let output = octopus_on(&backend).await.arg("migrate").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let db = backend.open().await;
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM installation";
    let (installations,): (i64,) = octopus::db::query(&db, sql).one().await.unwrap();
    assert_eq!(installations, 1);
    db.close().await;
}

#[apply(on_postgres!)]
async fn postgres_is_reached_over_tls(backend: Backend) {
    let url = backend.url().await;
    // A server at TEST_DATABASE_URL may have no TLS.
    let Some(certificate) = backend.certificate() else { return };
    let migrate = |mode: &str| {
        let url = format!("{url}?sslmode={mode}");
        let mut octopus = octopus(backend.folder());
        octopus.arg("migrate").env("DATABASE_URL", url).env("AUDIT_KEY", AUDIT_KEY);
        octopus.output().unwrap()
    };
    assert!(migrate("require").status.success());
    let trusted = migrate(&format!("verify-full&sslrootcert={}", certificate.display()));
    assert!(trusted.status.success(), "{}", output_text(&trusted));
    let unknown = migrate("verify-full");
    assert!(
        !unknown.status.success() && output_text(&unknown).contains("certificate"),
        "{unknown:?}"
    );
}

#[apply(on_both!)]
async fn memory_is_released_after_many_registrations(backend: Backend) {
    let server = Server::start(&backend, &[("RATE_LIMIT_ENABLED", "false")]).await;
    let client = reqwest::Client::new();
    let mut registrations = tokio::task::JoinSet::new();
    for n in 0..60 {
        let (name, email) = (format!("user{n}"), format!("user{n}@example.com"));
        let body =
            serde_json::json!({"username": name, "email": email, "password": "hello octopus"});
        registrations.spawn(client.post(server.url("/api/v1/users")).json(&body).send());
    }
    for answer in registrations.join_all().await {
        assert_eq!(answer.unwrap().status(), 201);
    }
    sleep(Duration::from_secs(2)).await;
    let kilobytes = server.resident();
    // With the system's allocator, more than 500 000 kB stay resident.
    assert!(kilobytes < 150_000, "{kilobytes} kB are still resident");
}

#[apply(on_both!)]
async fn a_request_cancelled_by_its_client_is_logged(backend: Backend) {
    let server = Server::start(&backend, &[("RATE_LIMIT_ENABLED", "false")]).await;
    let mut clients = vec![];
    // Passwords are hashed a few at a time, so most requests still wait when their clients
    // disconnect.
    for n in 0..20 {
        let body = format!(
            r#"{{"username":"u{n}","email":"u{n}@example.com","password":"hello octopus"}}"#
        );
        let head = "POST /api/v1/users HTTP/1.1\r\nHost: x\r\nX-Request-Id: hung-up\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let mut client = std::net::TcpStream::connect(server.address()).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        clients.push(client);
    }
    let answered = async |enough: fn(&[Value]) -> bool| {
        for _ in 0..400 {
            let mut events = server.events("request");
            events.retain(|event| event["span"]["request_id"] == "hung-up");
            if enough(&events) {
                return;
            }
            sleep(Duration::from_millis(25)).await;
        }
        panic!("{:#?}", server.events("request"));
    };
    answered(|events| !events.is_empty()).await;
    drop(clients);
    answered(|events| events.iter().any(|event| event["status"] == 499)).await;
}

#[apply(on_both!)]
async fn a_stalled_metrics_client_does_not_delay_the_shutdown(backend: Backend) {
    let address = format!("127.0.0.1:{}", free_port());
    let server = Server::start(&backend, &[("METRICS_ADDR", &address)]).await;
    let mut scraper = std::net::TcpStream::connect(&address).unwrap();
    scraper.write_all(b"GET /met").unwrap();
    let (code, took) = server.stop();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(3), "stopped after {took:?}");
    let left = fs::read_dir(backend.folder()).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        (name.ends_with("-wal") || name.ends_with("-shm")).then_some(name)
    });
    assert_eq!(left.collect::<Vec<_>>(), [""; 0], "the database was closed");
}

#[apply(on_both!)]
async fn an_undeliverable_webhook_event_is_abandoned_and_logged(backend: Backend) {
    backend.open().await.close().await;
    for (id, created_at) in [("old", "2026-01-01"), ("young", "2999-01-01")] {
        let sql = format!(
            "INSERT INTO webhook_outbox (message_id, event, payload, created_at, next_attempt_at) \
             VALUES ('{id}', 'api_key.created', '{{}}', '{created_at}T00:00:00+00:00', \
             '2026-01-01T00:00:00+00:00')"
        );
        backend.execute(sql).await;
    }
    let metrics = format!("127.0.0.1:{}", free_port());
    let server = Server::start(
        &backend,
        &[
            ("METRICS_ADDR", &metrics),
            ("WEBHOOK_URL", "http://me:hunter2@127.0.0.1:1/hunter2?token=hunter2"),
            ("WEBHOOK_SECRET", WEBHOOK_SECRET),
        ],
    )
    .await;
    for _ in 0..200 {
        if !server.events("webhook.failed").is_empty() {
            break;
        }
        sleep(Duration::from_millis(25)).await;
    }
    for (name, level, id) in
        [("webhook.abandoned", "ERROR", "old"), ("webhook.failed", "WARN", "young")]
    {
        let events = server.events(name);
        assert_eq!(events.len(), 1, "{}", server.log());
        let event = &events[0];
        assert_eq!((&event["level"], &event["message_id"]), (&json!(level), &json!(id)));
        assert_eq!(
            (&event["event_type"], &event["attempt"]),
            (&json!("api_key.created"), &json!(1))
        );
        assert_eq!(event["receiver"], "http://127.0.0.1:1");
        assert!(event["error"].as_str().unwrap().starts_with("cannot connect: "), "{event}");
    }
    assert!(!server.log().contains("hunter2"), "{}", server.log());
    let text = reqwest::get(format!("http://{metrics}/metrics")).await.unwrap();
    let text = text.text().await.unwrap();
    for outcome in ["abandoned", "failed"] {
        let line = format!(r#"octopus_webhook_deliveries_total{{outcome="{outcome}"}} 1"#);
        assert!(text.contains(&line), "{line} is missing in\n{text}");
    }
    assert_eq!(server.stop().0, Some(0));
}

#[apply(without_database!)]
fn all_problems_of_the_configuration_are_reported_together() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), "PORT=eighty\nREGISTRATION=maybe\n").unwrap();
    let output = octopus(folder.path()).env("RATE_LIMIT_KEY_PER_MINUTE", "0").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    for name in ["PORT must be", "REGISTRATION must be", "RATE_LIMIT_KEY_PER_MINUTE must be"] {
        assert!(output_text(&output).contains(name), "{}", output_text(&output));
    }
    assert!(!folder.path().join("chat_conversations.db").exists(), "nothing was started");
}

#[apply(without_database!)]
fn a_mistyped_master_key_is_reported_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mistyped = "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMR";
    let output = octopus(folder.path()).env("MASTER_API_KEY", mistyped).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output_text(&output).contains("MASTER_API_KEY"), "{}", output_text(&output));
    assert!(!output_text(&output).contains(mistyped));
    assert!(!folder.path().join("chat_conversations.db").exists(), "nothing was started");
}

#[apply(without_database!)]
fn an_invalid_webhook_setting_is_reported_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let output = octopus(folder.path())
        .envs([("WEBHOOK_URL", "hooks.example.com/hunter2"), ("WEBHOOK_SECRET", "whsec_hunter2")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    for name in ["WEBHOOK_URL must be", "WEBHOOK_SECRET must be"] {
        assert!(output_text(&output).contains(name), "{}", output_text(&output));
    }
    assert!(!output_text(&output).contains("hunter2"), "{}", output_text(&output));
    assert!(!folder.path().join("chat_conversations.db").exists(), "nothing was started");
}

#[apply(without_database!)]
fn openapi_prints_the_document() {
    let output = octopus(std::path::Path::new("/")).arg("openapi").output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
}

#[apply(without_database!)]
fn healthcheck_fails_without_a_server() {
    let output =
        octopus(std::path::Path::new("/")).arg("healthcheck").env("PORT", free_port()).output();
    assert_eq!(output.unwrap().status.code(), Some(1));
}

#[apply(without_database!)]
fn a_failed_start_reports_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("diary.db"), "dear diary, today is not a database").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    let (free, closed) = (free_port(), free_port());
    let postgres = format!("postgres://me:hunter2@127.0.0.1:{closed}/octopus");
    let key = "6f1ed002ab5595859014ebf0951522d9";
    let cases: [(&[(&str, &str)], String); 4] = [
        (
            &[("PORT", &taken)],
            format!(
                "cannot listen on 127.0.0.1:{taken}: Address already in use (os error 98): \
                     another program uses this port; stop it, or set PORT"
            ),
        ),
        (
            &[("PORT", &free), ("DATABASE_URL", "sqlite:////no/such/directory/octopus.db")],
            "the directory /no/such/directory does not exist; create it, or change DATABASE_URL"
                .into(),
        ),
        (
            &[("PORT", &free), ("DATABASE_URL", "sqlite:///./diary.db")],
            "./diary.db is not an SQLite database; name another file".into(),
        ),
        (
            &[("PORT", &free), ("DATABASE_URL", &postgres), ("AUDIT_KEY", key)],
            format!(
                "cannot connect to Postgres at 127.0.0.1:{closed}: Connection refused (os error \
                     111); check DATABASE_URL, and that Postgres runs and accepts connections from \
                     this machine"
            ),
        ),
    ];
    for (variables, expected) in cases {
        let mut command = octopus(folder.path());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let printed = output_text(&output);
        assert_eq!(output.status.code(), Some(1), "{printed}");
        assert!(printed.ends_with(&format!("octopus: {expected}\n")), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

/// Returns the lines that `octopus serve` prints on a terminal within two seconds.
fn on_a_terminal(folder: &std::path::Path, variables: &[(&str, &str)]) -> Vec<String> {
    let server = octopus(folder);
    let command = format!("timeout 2 {}", server.get_program().to_str().unwrap());
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &command, "/dev/null"]).current_dir(folder).env("RUST_LOG", "warn");
    let output = terminal.envs(variables.iter().copied()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[apply(without_database!)]
fn a_terminal_shows_a_short_first_screen() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let lines = on_a_terminal(folder.path(), &[("PORT", &port)]);
    let url = format!("http://localhost:{port}");
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        format!("Octopus {version}"),
        format!("  Address        {url}"),
        "  Database       SQLite, ./chat_conversations.db".into(),
        format!("  Documentation  {url}/docs"),
        format!("  First API key  curl -X POST {url}/bootstrap"),
    ];
    assert_eq!(lines[..5], expected, "{lines:?}");
    let token = "  From outside   add -H 'Octopus-Bootstrap-Token: octb_";
    assert!(lines[5].starts_with(token) && lines.len() == 6, "{lines:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 120), "{lines:?}");
    let token = ("BOOTSTRAP_TOKEN", "x9Kq-Tw7z_Bn4Lr2");
    let lines = on_a_terminal(folder.path(), &[("PORT", &port), token, ("DOCS_ENABLED", "false")]);
    let program = octopus(folder.path()).get_program().to_str().unwrap().to_owned();
    assert_eq!(lines[3..], [format!("  First API key  {program} bootstrap")], "{lines:?}");
    let bootstrap = octopus(folder.path()).arg("bootstrap").output().unwrap();
    assert!(bootstrap.status.success());
    assert_eq!(on_a_terminal(folder.path(), &[("PORT", &port)]).len(), 4);
}
