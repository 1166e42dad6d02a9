//! Failing and read-only disks, and a database that another process has locked: the server refuses
//! writes with the reason, serves reads, loses no acknowledged write, and recovers without a
//! restart.

use super::calls::Caller;
use super::disk::{FULL, PATIENCE, database, refused_for_now, serve, sound, until};
use super::faults::break_disk;
use super::mounts::{Disk, skipped};
use crate::support::process::{Server, octopus, output_text};
use crate::support::{Answer, Backend, measured, scale};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const LOCKED: &str = "The database is locked by another process; try again in a moment";
const CROWDED: &str = "The database is busy; try again in a moment";
const FAILING: &str = "The disk of the database is failing: a read or write failed";
const READ_ONLY: &str = "The database is read-only: writes fail until it is writable again";

/// The user that [`change`] changes.
const USER: &str = "/api/v1/users/1";

/// A caller of a server with a new database, which then has the user [`USER`].
async fn caller_with_user(server: &Server) -> Caller {
    let caller = Caller::of(server);
    assert_eq!(caller.register("ada").await.expect(201)["id"], 1);
    caller
}

/// Sends a write that changes [`USER`].
async fn change(caller: &Caller) -> Answer {
    let name = format!("Ada {}", rand::random::<u64>());
    caller.put(USER, json!({"full_name": name})).send().await
}

/// Asserts that reads succeed.
async fn reads_succeed(caller: &Caller) {
    caller.stranger(Method::GET, "/health").send().await.expect(200);
    for path in ["/api/v1/api-keys/me", "/api/v1/users", "/api/v1/admin/stats"] {
        let answer = caller.get(path).send().await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
}

async fn is_ready(caller: &Caller) {
    let ready = async || caller.stranger(Method::GET, "/ready").send().await;
    until(200, PATIENCE, ready).await;
}

async fn is_not_ready(caller: &Caller, why: &str) {
    let ready = async || caller.stranger(Method::GET, "/ready").send().await;
    until(503, PATIENCE, ready).await.refused(503, why);
}

#[apply(on_sqlite!)]
async fn a_database_that_another_process_has_locked_can_still_be_read(backend: Backend) {
    use sqlx::{ConnectOptions, Connection, Executor};
    let server = serve(&backend, backend.folder(), &[]).await;
    let caller = caller_with_user(&server).await;
    change(&caller).await.expect(200);
    let file = database(backend.folder());
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut locked = vec![];
    for begin in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
        let mut other = options.connect().await.unwrap();
        other.execute(begin).await.unwrap();
        let began = Instant::now();
        let writes: Vec<_> = (0..scale(4, 64))
            .map(|_| {
                let caller = caller.clone();
                tokio::spawn(async move { (change(&caller).await, Instant::now()) })
            })
            .collect();
        reads_succeed(&caller).await;
        is_not_ready(&caller, "database locked or busy").await;
        reads_succeed(&caller).await;
        let mut details = BTreeSet::new();
        for write in writes {
            let (answer, at) = write.await.unwrap();
            locked.push(at - began);
            details.insert(answer["detail"].as_str().unwrap_or_default().to_owned());
            let detail = if answer["detail"] == LOCKED { LOCKED } else { CROWDED };
            refused_for_now(answer, detail);
        }
        assert!(details.contains(LOCKED), "{details:?}");
        other.execute("ROLLBACK").await.unwrap();
        let again = Instant::now();
        change(&caller).await.expect(200);
        assert!(again.elapsed() < PATIENCE, "{:?}", again.elapsed());
        is_ready(&caller).await;
        other.close().await.unwrap();
    }
    // The server waits for a short lock of another process.
    let mut other = options.connect().await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let write = tokio::spawn({
        let caller = caller.clone();
        async move { change(&caller).await }
    });
    sleep(Duration::from_millis(500)).await;
    other.execute("ROLLBACK").await.unwrap();
    write.await.unwrap().expect(200);
    other.close().await.unwrap();
    let (first, last) = (locked.iter().min().unwrap(), locked.iter().max().unwrap());
    assert!(*last < Duration::from_secs(25), "a write waited for {last:?}");
    assert_eq!(server.stop().0, Some(0));
    sound(backend.folder()).await;
    measured(&format!(
        "locked by another process, sqlite: {} writes refused after {first:.1?} to {last:.1?}",
        locked.len()
    ));
}

#[apply(on_sqlite!)]
async fn a_disk_that_fails_refuses_writes_until_it_works(backend: Backend) {
    let server = serve(&backend, backend.folder(), &[]).await;
    let caller = caller_with_user(&server).await;
    let mut acknowledged = change(&caller).await.expect(200);
    let mut refused = 0;
    for (calls, error) in [("pwrite64", "EIO"), ("fdatasync,fsync", "EIO"), ("pwrite64", "EDQUOT")]
    {
        let Some(fault) = break_disk(&server, backend.folder(), calls, error) else { return };
        for _ in 0..scale(3, 100) {
            refused_for_now(change(&caller).await, FAILING);
            refused += 1;
        }
        is_not_ready(&caller, "database disk failing").await;
        reads_succeed(&caller).await;
        let found = caller.get(USER).send().await.expect(200);
        assert_eq!(found, acknowledged, "what was refused is not to be seen");
        drop(fault);
        acknowledged = change(&caller).await.expect(200);
        is_ready(&caller).await;
    }
    assert_eq!(server.stop().0, Some(0));
    sound(backend.folder()).await;
    measured(&format!("failing disk, sqlite: {refused} writes refused, next one after it works"));
}

#[apply(on_sqlite!)]
async fn a_disk_that_becomes_read_only_refuses_writes_until_it_can_be_written(backend: Backend) {
    let server = serve(&backend, backend.folder(), &[]).await;
    let caller = caller_with_user(&server).await;
    change(&caller).await.expect(200);
    // The effect of a file system that is remounted read-only, by the kernel after an error or by
    // an operator.
    let calls = "pwrite64,ftruncate,fallocate";
    let Some(fault) = break_disk(&server, backend.folder(), calls, "EROFS") else { return };
    for _ in 0..3 {
        refused_for_now(change(&caller).await, FAILING);
    }
    is_not_ready(&caller, "database disk failing").await;
    reads_succeed(&caller).await;
    drop(fault);
    change(&caller).await.expect(200);
    is_ready(&caller).await;
    assert_eq!(server.stop().0, Some(0));
    sound(backend.folder()).await;
}

/// Makes the file immutable, even for root, or mutable again.
fn may_write(file: &Path, may: bool) -> Option<()> {
    let change = Command::new("chattr").arg(if may { "-i" } else { "+i" }).arg(file).output();
    match change {
        Ok(output) if output.status.success() => Some(()),
        Ok(output) => skipped("chattr", &String::from_utf8_lossy(&output.stderr)),
        Err(error) => skipped("chattr", &error.to_string()),
    }
}

/// The error of a server that cannot start on this disk.
fn start_error(backend: &Backend, disk: &Disk) -> String {
    let url = format!("sqlite:///{}", database(disk.path()).display());
    let began = Instant::now();
    let output = octopus(backend.folder()).env("DATABASE_URL", url).env("PORT", "0").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    output_text(&output)
}

#[apply(on_sqlite!)]
async fn a_read_only_database_is_reported_at_startup(backend: Backend) {
    let Some(disk) = Disk::new(4096) else { return };
    let server = serve(&backend, disk.path(), &[]).await;
    change(&caller_with_user(&server).await).await.expect(200);
    assert_eq!(server.stop().0, Some(0));
    disk.remount("ro");
    let reason = start_error(&backend, &disk);
    assert!(reason.contains("octopus.db.lock: Read-only file system"), "{reason}");
    let (backup, url) = (backend.folder().join("b.db"), database(disk.path()));
    let mut command = octopus(backend.folder());
    command.arg("backup").arg(&backup).env("DATABASE_URL", format!("sqlite:///{}", url.display()));
    let text = output_text(&command.output().unwrap());
    assert!(text.contains("octopus.db: Read-only file system"), "{text}");
    assert!(!backup.exists(), "{text}");
    disk.remount("rw");
    let file = database(disk.path());
    if may_write(&file, false).is_none() {
        return;
    }
    let reason = start_error(&backend, &disk);
    assert!(reason.contains("octopus.db: Operation not permitted"), "{reason}");
    may_write(&file, true).unwrap();
    let server = serve(&backend, disk.path(), &[]).await;
    change(&Caller::of(&server)).await.expect(200);
    assert_eq!(server.stop().0, Some(0));
    sound(disk.path()).await;
}

/// Starts a server on Postgres.
async fn serve_postgres(backend: &Backend) -> Server {
    Server::start(backend, &super::calls::PLAIN).await
}

#[apply(on_postgres!)]
async fn a_postgres_that_refuses_writes_can_still_be_read(backend: Backend) {
    let server = serve_postgres(&backend).await;
    let caller = caller_with_user(&server).await;
    change(&caller).await.expect(200);
    let url = backend.url().await;
    let name = url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    // The setting applies to new connections, so the existing ones are terminated.
    let renew = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    );
    let set = |value: &str| {
        format!(
            "BEGIN READ WRITE; ALTER DATABASE {name} SET default_transaction_read_only = {value}; \
             COMMIT; {renew}"
        )
    };
    backend.execute(set("on")).await;
    let refusal = async || {
        let answer = change(&caller).await;
        // The first write may still get a terminated connection.
        let is_read_only = answer["detail"] == READ_ONLY;
        if is_read_only { answer } else { caller.stranger(Method::GET, "/health").send().await }
    };
    refused_for_now(until(503, PATIENCE, refusal).await, READ_ONLY);
    for _ in 0..3 {
        refused_for_now(change(&caller).await, READ_ONLY);
    }
    is_not_ready(&caller, "database read-only").await;
    reads_succeed(&caller).await;
    backend.execute(set("off")).await;
    is_ready(&caller).await;
    let works = async || change(&caller).await;
    until(200, PATIENCE, works).await;
    assert_eq!(server.stop().0, Some(0));
}

#[apply(on_postgres!)]
async fn a_postgres_with_a_full_disk_is_reported(backend: Backend) {
    use sqlx::Connection;
    let Some(disk) = Disk::new(4096) else { return };
    let mut postgres = sqlx_postgres::PgConnection::connect(&backend.url().await).await.unwrap();
    let data: String =
        sqlx::query_scalar("SHOW data_directory").fetch_one(&mut postgres).await.unwrap();
    postgres.close().await.unwrap();
    let Ok(data) = std::fs::metadata(&data) else {
        return skipped::<()>("a table on a small disk", "Postgres is elsewhere").unwrap_or(());
    };
    chown(disk.path(), Some(data.uid()), Some(data.gid())).unwrap();
    let server = serve_postgres(&backend).await;
    let caller = Caller::of(&server);
    let small = format!("small_{}", std::process::id());
    let place = disk.path().display();
    backend.execute(format!("CREATE TABLESPACE {small} LOCATION '{place}'")).await;
    backend.execute(format!("ALTER TABLE messages SET TABLESPACE {small}")).await;

    let ada = caller.register("ada").await.expect(201)["id"].as_i64().unwrap();
    let conversation = json!({"title": "a talk", "participant_ids": [ada]});
    let conversation = caller.post("/api/v1/conversations", conversation).send().await.expect(201);
    let messages = format!("/api/v1/conversations/{}/messages", conversation["id"]);
    let send = async || {
        // Random content, because Postgres compresses repetitions.
        let numbers: Vec<u64> = (0..5000).map(|_| rand::random()).collect();
        let text = format!("{numbers:x?}");
        caller.post(&messages, json!({"role": "user", "content": text})).send().await
    };
    let mut acknowledged = BTreeSet::from([send().await.expect(201)["id"].as_i64().unwrap()]);
    disk.fill();
    let refusal = loop {
        let answer = send().await;
        if answer.status != 201 {
            break answer;
        }
        acknowledged.insert(answer["id"].as_i64().unwrap());
    };
    refused_for_now(refusal, FULL);
    reads_succeed(&caller).await;
    disk.make_room();
    acknowledged.insert(send().await.expect(201)["id"].as_i64().unwrap());
    is_ready(&caller).await;
    assert_eq!(super::disk::stored(&caller, &messages).await, acknowledged);
    assert_eq!(server.stop().0, Some(0));
    backend.execute("ALTER TABLE messages SET TABLESPACE pg_default").await;
    backend.execute(format!("DROP TABLESPACE {small}")).await;
}
