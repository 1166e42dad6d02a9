//! A server whose SQLite files are removed or replaced: it acknowledges no write that would be
//! lost, says so, and recovers when the files are back.

use crate::support::Backend;
use crate::support::process::Server;
use reqwest::Client;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const KEY: &str = "6f1ed002ab5595859014ebf0951522d9";

/// The status and the detail of the response to the registration of user `n`.
async fn register(server: &Server, n: usize) -> (u16, Value) {
    let body = json!({
        "username": format!("user{n}"), "email": format!("user{n}@example.com"),
        "password": "hello octopus",
    });
    let answer = Client::new().post(server.url("/api/v1/users")).json(&body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json::<Value>().await.unwrap()["detail"].take())
}

async fn get(server: &Server, path: &str) -> (u16, Value) {
    let request = Client::new().get(server.url(path)).header("Octopus-API-Key", KEY);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[apply(on_sqlite!)]
async fn writes_are_refused_while_a_file_is_removed_or_replaced(backend: Backend) {
    let variables = [("MASTER_API_KEY", KEY), ("RATE_LIMIT_ENABLED", "false")];
    let mut server = Server::start(&backend, &variables).await;
    assert_eq!(register(&server, 0).await.0, 201);
    let files = [
        ("octopus.db", "The database file was", "database file removed or replaced"),
        (
            "octopus.db-wal",
            "The write-ahead log of the database (-wal) was",
            "write-ahead log of the database (-wal) removed or replaced",
        ),
        (
            "octopus.db-shm",
            "The index of the write-ahead log (-shm) was",
            "index of the write-ahead log (-shm) removed or replaced",
        ),
    ];
    let cases = files.iter().flat_map(|file| [(file, false), (file, true)]);
    for (n, ((name, sentence, reason), is_replaced)) in (1..).zip(cases) {
        let what = format!("{name}, replaced: {is_replaced}");
        let (file, away) = (backend.folder().join(name), backend.folder().join("away"));
        fs::rename(&file, &away).unwrap();
        if is_replaced {
            fs::copy(&away, &file).unwrap();
        }
        let (status, detail) = register(&server, 1000 + n).await;
        assert_eq!(status, 503, "{what}: {detail}");
        assert!(detail.as_str().unwrap().starts_with(sentence), "{what}: {detail}");
        let limit = Duration::from_secs(1);
        let is_logged = async || server.events("database.file_lost").len() == n;
        until(&format!("{what} is not logged"), limit, is_logged).await;
        let event = server.events("database.file_lost").pop().unwrap();
        assert_eq!(event["level"], "ERROR");
        assert!(event["file"].as_str().unwrap().ends_with(name), "{event}");
        let not_ready = async || get(&server, "/ready").await == (503, json!({"detail": reason}));
        until(&format!("{what}: ready"), Duration::from_secs(3), not_ready).await;
        assert_eq!(get(&server, "/api/v1/users").await.0, 200, "{what}");
        assert_eq!(server.events("database.file_lost").len(), n, "{what}: logged once");
        fs::rename(&away, &file).unwrap();
        let (status, detail) = register(&server, n).await;
        assert_eq!(status, 201, "{what}: {detail}");
        let ready = async || get(&server, "/ready").await.0 == 200;
        until(&format!("{what}: not ready"), Duration::from_secs(3), ready).await;
        assert_eq!(server.events("database.file_restored").len(), n, "{what}");
    }
    server.terminate();
    assert_eq!(server.ended().await, Some(0));
    server.start_again().await;
    let (_, users) = get(&server, "/api/v1/users").await;
    let names: Vec<&str> =
        users.as_array().unwrap().iter().map(|user| user["username"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..=6).map(|n| format!("user{n}")).collect();
    assert_eq!(names, expected, "every acknowledged write is kept, and no other");
}

#[apply(on_sqlite!)]
async fn an_idle_server_detects_within_a_second_that_its_file_was_removed(backend: Backend) {
    let server = Server::start(&backend, &[]).await;
    fs::remove_file(backend.folder().join("octopus.db")).unwrap();
    let is_logged = async || server.events("database.file_lost").len() == 1;
    until("not logged", Duration::from_secs(1), is_logged).await;
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(server.events("database.file_lost").len(), 1, "{}", server.log());
    assert_eq!(server.stop().0, Some(0));
}
