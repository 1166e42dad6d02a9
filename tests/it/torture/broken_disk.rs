//! Disks that fail or can only be read, and a database somebody else has locked: writes are refused
//! with the reason, reads go on, nothing that was acknowledged is lost, and all works again by itself.

use super::calls::Caller;
use super::disk::{FULL, PATIENCE, database, refused_for_now, serve, sound, until};
use super::faults::break_disk;
use super::mounts::{Disk, skipped};
use crate::support::process::{Server, octopus, said};
use crate::support::{Answer, Backend, measured, scale, tests};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

tests!(on_both: [], on_sqlite: [
    a_database_that_another_process_has_locked_is_read_all_the_same,
    a_disk_that_fails_refuses_writes_until_it_works,
    a_disk_that_becomes_read_only_refuses_writes_until_it_can_be_written,
    a_database_that_can_only_be_read_is_told_at_the_start,
], on_postgres: [
    a_postgres_that_takes_no_writes_is_read_all_the_same,
    a_postgres_whose_disk_is_full_says_so,
]);

const LOCKED: &str = "The database is locked by another process; try again in a moment";
const CROWDED: &str = "The database has no time for this request; try again in a moment";
const FAILING: &str = "The disk of the database fails: it could not be read or written";
const READ_ONLY: &str = "The database can only be read: nothing can be stored for now";

/// Changes an item for good.
async fn change(caller: &Caller) -> Answer {
    let name = format!("item {}", rand::random::<u64>());
    caller.put("/api/v1/items/plumbus", json!({"name": name})).send().await
}

/// Asserts that nothing but writing is in trouble.
async fn reads_go_on(caller: &Caller) {
    caller.stranger(Method::GET, "/health").send().await.expect(200);
    for path in ["/api/v1/items", "/api/v1/api-keys/me", "/api/v1/users", "/api/v1/admin/stats"] {
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

async fn a_database_that_another_process_has_locked_is_read_all_the_same(backend: Backend) {
    use sqlx::{ConnectOptions, Connection, Executor};
    let server = serve(&backend, backend.folder(), &[]).await;
    let caller = Caller::of(&server);
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
        reads_go_on(&caller).await;
        is_not_ready(&caller, "database locked or busy").await;
        reads_go_on(&caller).await;
        let mut said = BTreeSet::new();
        for write in writes {
            let (answer, at) = write.await.unwrap();
            locked.push(at - began);
            said.insert(answer["detail"].as_str().unwrap_or_default().to_owned());
            let detail = if answer["detail"] == LOCKED { LOCKED } else { CROWDED };
            refused_for_now(answer, detail);
        }
        assert!(said.contains(LOCKED), "{said:?}");
        other.execute("ROLLBACK").await.unwrap();
        let again = Instant::now();
        change(&caller).await.expect(200);
        assert!(again.elapsed() < PATIENCE, "{:?}", again.elapsed());
        is_ready(&caller).await;
        other.close().await.unwrap();
    }
    // A lock that others have for a moment is waited for.
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

async fn a_disk_that_fails_refuses_writes_until_it_works(backend: Backend) {
    let server = serve(&backend, backend.folder(), &[]).await;
    let caller = Caller::of(&server);
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
        reads_go_on(&caller).await;
        let found = caller.get("/api/v1/items/plumbus").send().await.expect(200);
        assert_eq!(found, acknowledged, "what was refused is not to be seen");
        drop(fault);
        acknowledged = change(&caller).await.expect(200);
        is_ready(&caller).await;
    }
    assert_eq!(server.stop().0, Some(0));
    sound(backend.folder()).await;
    measured(&format!("failing disk, sqlite: {refused} writes refused, next one after it works"));
}

async fn a_disk_that_becomes_read_only_refuses_writes_until_it_can_be_written(backend: Backend) {
    let server = serve(&backend, backend.folder(), &[]).await;
    let caller = Caller::of(&server);
    change(&caller).await.expect(200);
    // As a file system does that is mounted anew to be read only, because of an error or by somebody.
    let calls = "pwrite64,ftruncate,fallocate";
    let Some(fault) = break_disk(&server, backend.folder(), calls, "EROFS") else { return };
    for _ in 0..3 {
        refused_for_now(change(&caller).await, FAILING);
    }
    is_not_ready(&caller, "database disk failing").await;
    reads_go_on(&caller).await;
    drop(fault);
    change(&caller).await.expect(200);
    is_ready(&caller).await;
    assert_eq!(server.stop().0, Some(0));
    sound(backend.folder()).await;
}

/// Lets nobody write the file, not even root; or lets them again.
fn may_write(file: &Path, may: bool) -> Option<()> {
    let change = Command::new("chattr").arg(if may { "-i" } else { "+i" }).arg(file).output();
    match change {
        Ok(output) if output.status.success() => Some(()),
        Ok(output) => skipped("chattr", &String::from_utf8_lossy(&output.stderr)),
        Err(error) => skipped("chattr", &error.to_string()),
    }
}

/// Why a server on this disk does not start.
fn told(backend: &Backend, disk: &Disk) -> String {
    let url = format!("sqlite:///{}", database(disk.path()).display());
    let began = Instant::now();
    let output = octopus(backend.folder()).env("DATABASE_URL", url).env("PORT", "0").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    said(&output)
}

async fn a_database_that_can_only_be_read_is_told_at_the_start(backend: Backend) {
    let Some(disk) = Disk::new(4096) else { return };
    let server = serve(&backend, disk.path(), &[]).await;
    change(&Caller::of(&server)).await.expect(200);
    assert_eq!(server.stop().0, Some(0));
    disk.remount("ro");
    let reason = told(&backend, &disk);
    assert!(reason.contains("octopus.db.lock: Read-only file system"), "{reason}");
    disk.remount("rw");
    let file = database(disk.path());
    if may_write(&file, false).is_none() {
        return;
    }
    let reason = told(&backend, &disk);
    assert!(reason.contains("readonly database"), "{reason}");
    may_write(&file, true).unwrap();
    let server = serve(&backend, disk.path(), &[]).await;
    change(&Caller::of(&server)).await.expect(200);
    assert_eq!(server.stop().0, Some(0));
    sound(disk.path()).await;
}

/// A server on Postgres.
async fn serve_postgres(backend: &Backend) -> Server {
    Server::start(backend, &super::calls::PLAIN).await
}

async fn a_postgres_that_takes_no_writes_is_read_all_the_same(backend: Backend) {
    let server = serve_postgres(&backend).await;
    let caller = Caller::of(&server);
    change(&caller).await.expect(200);
    let url = backend.url().await;
    let name = url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    // Sessions learn of it when they begin.
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
        // A connection that was cut may be found by whoever comes first.
        let is_read_only = answer["detail"] == READ_ONLY;
        if is_read_only { answer } else { caller.stranger(Method::GET, "/health").send().await }
    };
    refused_for_now(until(503, PATIENCE, refusal).await, READ_ONLY);
    for _ in 0..3 {
        refused_for_now(change(&caller).await, READ_ONLY);
    }
    is_not_ready(&caller, "database read-only").await;
    reads_go_on(&caller).await;
    backend.execute(set("off")).await;
    is_ready(&caller).await;
    let works = async || change(&caller).await;
    until(200, PATIENCE, works).await;
    assert_eq!(server.stop().0, Some(0));
}

async fn a_postgres_whose_disk_is_full_says_so(backend: Backend) {
    use sqlx::Connection;
    let Some(disk) = Disk::new(4096) else { return };
    let mut postgres = sqlx::PgConnection::connect(&backend.url().await).await.unwrap();
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
    let talk = json!({"title": "a talk", "participant_ids": [ada]});
    let talk = caller.post("/api/v1/conversations", talk).send().await.expect(201);
    let messages = format!("/api/v1/conversations/{}/messages", talk["id"]);
    let say = async || {
        // Postgres would compress what repeats.
        let numbers: Vec<u64> = (0..5000).map(|_| rand::random()).collect();
        let text = format!("{numbers:x?}");
        caller.post(&messages, json!({"role": "user", "content": text})).send().await
    };
    let mut acknowledged = BTreeSet::from([say().await.expect(201)["id"].as_i64().unwrap()]);
    disk.fill();
    let refusal = loop {
        let answer = say().await;
        if answer.status != 201 {
            break answer;
        }
        acknowledged.insert(answer["id"].as_i64().unwrap());
    };
    refused_for_now(refusal, FULL);
    reads_go_on(&caller).await;
    disk.make_room();
    acknowledged.insert(say().await.expect(201)["id"].as_i64().unwrap());
    is_ready(&caller).await;
    assert_eq!(super::disk::stored(&caller, &messages).await, acknowledged);
    assert_eq!(server.stop().0, Some(0));
    backend.execute("ALTER TABLE messages SET TABLESPACE pg_default").await;
    backend.execute(format!("DROP TABLESPACE {small}")).await;
}
