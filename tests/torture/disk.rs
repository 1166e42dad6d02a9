//! Full disks: the server refuses writes with the reason, serves reads, loses no acknowledged
//! write, and recovers without a restart.

use super::calls::{Caller, PLAIN};
use super::mounts::Disk;
use crate::support::process::{Server, free_port, octopus};
use crate::support::{Answer, Backend, measured, scale};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Time limit for operations that are normally immediate.
pub const PATIENCE: Duration = Duration::from_secs(10);
pub const FULL: &str = "The disk of the database is full: writes fail until space is freed";
const NO_ROOM: &str = "There is not enough disk space to buffer the import";

/// Starts a server with its database in `folder` and its log elsewhere.
pub async fn serve(backend: &Backend, folder: &Path, more: &[(&str, &str)]) -> Server {
    let (port, log) = (free_port(), backend.folder().join("log"));
    let mut command = octopus(backend.folder());
    command.env("DATABASE_URL", format!("sqlite:///{}", database(folder).display()));
    command.env("PORT", &port).envs(PLAIN).envs(more.iter().copied());
    command.stderr(File::create(&log).unwrap());
    Server::run(command, port, log).await
}

pub fn database(folder: &Path) -> std::path::PathBuf {
    folder.join("octopus.db")
}

/// Asserts that a write was refused with this `detail`.
#[track_caller]
pub fn refused_for_now(answer: Answer, detail: &str) {
    assert_eq!(answer.header("retry-after"), Some("1"), "{} {}", answer.status, answer.text);
    answer.refused(503, detail);
}

/// Repeats `call` until the response has `status`.
pub async fn until(status: u16, patience: Duration, call: impl AsyncFn() -> Answer) -> Answer {
    let end = Instant::now() + patience;
    loop {
        let answer = call().await;
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < end, "{} {}", answer.status, answer.text);
        sleep(Duration::from_millis(50)).await;
    }
}

/// Checks a database that no process has open.
pub async fn sound(folder: &Path) {
    use sqlx::{ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database(folder));
    let mut connection = options.connect().await.unwrap();
    let integrity: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(integrity, "ok");
    let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut connection).await.unwrap();
    assert_eq!(broken.len(), 0, "rows refer to nothing");
    connection.close().await.unwrap();
    let verify = octopus(folder)
        .env("DATABASE_URL", format!("sqlite:///{}", database(folder).display()))
        .arg("verify")
        .output()
        .unwrap();
    assert!(verify.status.success(), "{verify:?}");
}

#[apply(on_sqlite!)]
async fn a_full_disk_refuses_writes_with_the_reason_and_loses_nothing(backend: Backend) {
    let Some(disk) = Disk::new(32 * 1024) else { return };
    let server = serve(&backend, disk.path(), &[]).await;
    let caller = Caller::of(&server);
    let ada = caller.register("ada").await.expect(201)["id"].as_i64().unwrap();
    let token = caller.login("ada").await.expect(200)["access_token"].clone();
    let token = token.as_str().unwrap().to_owned();
    let conversation = json!({"title": "a talk", "participant_ids": [ada]});
    let conversation = caller.post("/api/v1/conversations", conversation).send().await.expect(201);
    let conversation = format!("/api/v1/conversations/{}", conversation["id"]);
    let messages = format!("{conversation}/messages");
    let send = async || {
        let body = json!({"role": "user", "content": "octopus ".repeat(500)});
        caller.post(&messages, body).send().await
    };
    let mut acknowledged = BTreeSet::from([send().await.expect(201)["id"].as_i64().unwrap()]);
    assert_eq!(caller.ready().await, (200, "ready".to_owned()));

    disk.fill();
    // The write-ahead log may have preallocated space.
    let refusal = loop {
        let answer = send().await;
        if answer.status != 201 {
            break answer;
        }
        acknowledged.insert(answer["id"].as_i64().unwrap());
    };
    refused_for_now(refusal, FULL);
    // Small writes may still fit where the large one did not, and the server caches the finding for
    // a second.
    let change = async || caller.register(&format!("user{}", rand::random::<u32>())).await;
    until(503, PATIENCE, change).await;
    let ready = async || caller.stranger(Method::GET, "/ready").send().await;
    until(503, PATIENCE, ready).await.refused(503, "database disk full");
    writes_are_refused(&caller, ada).await;
    reads_succeed(&caller, &conversation, &token).await;
    let wrong =
        || caller.stranger(Method::GET, "/api/v1/users").key("no-key-of-this-server-012345");
    for _ in 0..7 {
        wrong().send().await.expect(401);
    }

    let (lines, busy) = (server.log().lines().count(), server.processor());
    let waited = scale(Duration::from_secs(6), Duration::from_mins(1));
    sleep(waited).await;
    let (lines, busy) = (server.log().lines().count() - lines, server.processor() - busy);
    let most = 4 * waited.as_secs();
    assert!(
        lines < usize::try_from(most).unwrap(),
        "{lines} lines in {waited:?}:\n{}",
        server.log()
    );
    assert!(busy < waited.as_secs_f64() / 2.0, "{busy} s of processor time in {waited:?}");
    assert!(!server.events("usage.flush_failed").is_empty());
    assert_eq!(caller.ready().await, (503, "database disk full".to_owned()));

    disk.make_room();
    let again = Instant::now();
    acknowledged.insert(send().await.expect(201)["id"].as_i64().unwrap());
    let again = again.elapsed();
    until(200, PATIENCE, ready).await;
    caller.register("eve").await.expect(201);
    caller.login("ada").await.expect(200);
    import(&caller).await.expect(200);
    let uses = caller.keyed();
    let usage = caller.get("/api/v1/api-keys/1/usage").send().await.expect(200);
    assert_eq!(usage["total"]["ok"], uses, "uses were kept");
    assert_eq!(stored(&caller, &messages).await, acknowledged);
    assert_eq!(server.stop().0, Some(0));
    sound(disk.path()).await;

    let server = serve(&backend, disk.path(), &[]).await;
    let caller = Caller::of(&server);
    let log = caller.get("/api/v1/api-keys/audit-logs?limit=1000").send().await.expect(200);
    let failures = |row: &&Value| row["action"] == "auth_failed";
    let counts = log.as_array().unwrap().iter().filter(failures);
    let counted: i64 = counts.map(|row| row["details"]["count"].as_i64().unwrap_or(0)).sum();
    assert_eq!(counted, 7, "refused credentials were kept: {log}");
    measured(&format!(
        "full disk, sqlite: {waited:?} full, {lines} lines logged, {busy:.2} s of processor time, \
         {} acknowledged, 0 lost, first write {again:?} after there was room",
        acknowledged.len()
    ));
}

/// Asserts that every kind of write is refused.
async fn writes_are_refused(caller: &Caller, ada: i64) {
    let user = format!("/api/v1/users/{ada}");
    refused_for_now(caller.register("eve").await, FULL);
    refused_for_now(caller.login("ada").await, FULL);
    for (method, path, body) in [
        (Method::PUT, &*user, json!({"full_name": "Other"})),
        (Method::POST, "/api/v1/api-keys", json!({"name": "one more"})),
        (Method::PATCH, "/api/v1/api-keys/1", json!({"name": "another"})),
        (Method::POST, "/api/v1/conversations", json!({"title": "x", "participant_ids": [ada]})),
    ] {
        refused_for_now(caller.call(method, path).json(body).send().await, FULL);
    }
    refused_for_now(caller.delete(&user).send().await, FULL);
    // Large bodies are spooled to the same disk.
    refused_for_now(import(caller).await, NO_ROOM);
}

/// Asserts that reads succeed. Exports with a key fail, because they add an audit entry.
async fn reads_succeed(caller: &Caller, conversation: &str, token: &str) {
    caller.stranger(Method::GET, "/health").send().await.expect(200);
    for path in [
        "/api/v1/conversations",
        conversation,
        &format!("{conversation}/messages"),
        "/api/v1/conversations/search?q=octopus",
        "/api/v1/users",
        "/api/v1/api-keys/me",
        "/api/v1/api-keys/1/usage",
        "/api/v1/api-keys/audit-logs",
        "/api/v1/admin/stats",
        "/api/v1/admin/audit/verify",
    ] {
        let answer = caller.get(path).send().await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    let me = caller.stranger(Method::GET, "/api/v1/users/me").session(token);
    me.send().await.expect(200);
}

/// Imports a conversation that is too large for memory.
pub async fn import(caller: &Caller) -> Answer {
    let time = "2026-01-01T00:00:00Z";
    let first = json!({"type": "conversation", "external_id": "abroad", "created_at": time});
    let mut lines = format!("{first}\n");
    for _ in 0..40 {
        let message = json!({"type": "message", "role": "user", "content": "x".repeat(40_000), "created_at": time});
        lines = lines + &message.to_string() + "\n";
    }
    let call = caller.call(Method::POST, "/api/v1/conversations/import");
    call.header("Content-Type", "application/x-ndjson").body(lines).send().await
}

/// The ids of all messages of a conversation.
pub async fn stored(caller: &Caller, messages: &str) -> BTreeSet<i64> {
    let mut ids = BTreeSet::new();
    loop {
        let page = format!("{messages}?limit=1000&skip={}", ids.len());
        let page = caller.get(&page).send().await.expect(200);
        let page = page.as_array().unwrap();
        if page.is_empty() {
            return ids;
        }
        ids.extend(page.iter().map(|message| message["id"].as_i64().unwrap()));
    }
}

#[apply(on_sqlite!)]
async fn writers_on_a_disk_that_fills_up_again_and_again_lose_nothing(backend: Backend) {
    let Some(disk) = Disk::new(scale(16, 96) * 1024) else { return };
    let server = serve(&backend, disk.path(), &[]).await;
    let caller = Caller::of(&server);
    let ada = caller.register("ada").await.expect(201)["id"].as_i64().unwrap();
    let conversation = json!({"title": "a talk", "participant_ids": [ada]});
    let conversation = caller.post("/api/v1/conversations", conversation).send().await.expect(201);
    let messages = format!("/api/v1/conversations/{}/messages", conversation["id"]);
    let user = format!("/api/v1/users/{ada}");
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (caller, messages, stop) = (caller.clone(), messages.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut acknowledged, mut refused) = (vec![], 0);
                while !stop.is_cancelled() {
                    let body = json!({"role": "user", "content": "octopus ".repeat(30)});
                    let answer = caller.post(&messages, body).send().await;
                    if answer.status == 201 {
                        acknowledged.push(answer["id"].as_i64().unwrap());
                        continue;
                    }
                    refused += 1;
                    refused_for_now(answer, FULL);
                    sleep(Duration::from_millis(20)).await;
                }
                (acknowledged, refused)
            })
        })
        .collect();
    let rounds = scale(3, 30);
    for _ in 0..rounds {
        sleep(Duration::from_millis(200)).await;
        disk.fill();
        let change = async || {
            let name = format!("Ada {}", rand::random::<u32>());
            caller.put(&user, json!({"full_name": name})).send().await
        };
        until(503, PATIENCE, change).await;
        disk.make_room();
        let ready = async || caller.stranger(Method::GET, "/ready").send().await;
        until(200, PATIENCE, ready).await;
    }
    stop.cancel();
    let (mut acknowledged, mut refused) = (BTreeSet::new(), 0);
    for writer in writers {
        let (ids, refusals) = writer.await.unwrap();
        acknowledged.extend(ids);
        refused += refusals;
    }
    assert!(refused > 0 && !acknowledged.is_empty());
    assert_eq!(stored(&caller, &messages).await, acknowledged);
    assert_eq!(server.stop().0, Some(0));
    sound(disk.path()).await;
    measured(&format!(
        "full disk, sqlite: filled {rounds} times under 8 writers, {} acknowledged, {refused} \
         refused, 0 lost",
        acknowledged.len()
    ));
}
