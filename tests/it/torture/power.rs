//! Power that fails cannot be shown by killing a process: what it wrote stays in the system's memory.
//! What can be shown is that the system was told to bring it to the disk, and has done so, before the
//! client was told. On Postgres that is Postgres's part.

use super::load::{Kind, Write, Writer};
use crate::support::process::{Server, free_port, octopus_on};
use crate::support::{Backend, Call, measured, say, scale, tests};
use regex::bytes::Regex;
use reqwest::Method;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

tests!(on_both: [], on_sqlite: [
    every_write_is_on_the_disk_before_its_client_is_told,
]);

/// Writes, ways to the disk, and answers.
const CALLS: &str = "trace=pwrite64,pwritev,fsync,fdatasync,write,writev,sendto,sendmsg";

/// `None` where it is not there and need not be.
fn strace() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("strace")).find(|p| p.exists());
    if found.is_none() {
        let required = std::env::var_os("OCTOPUS_REQUIRE_STRACE").is_some();
        assert!(!required, "strace is not installed, and OCTOPUS_REQUIRE_STRACE is set");
        say("\n*** POWER LOSS WAS NOT TESTED ***\nstrace is not installed.\n\n");
    }
    found
}

/// A server whose system calls are written to `trace`.
async fn traced(backend: &Backend, strace: &Path, trace: &Path) -> Server {
    let (octopus, port, log) =
        (octopus_on(backend).await, free_port(), backend.folder().join("log"));
    let mut command = Command::new(strace);
    // As a child of the server rather than its parent, whose id is that of the server then.
    command.args(["-D", "-f", "--seccomp-bpf", "-q", "-y", "-xx", "-s", "1000", "-e", CALLS, "-o"]);
    command.arg(trace);
    command.arg(octopus.get_program()).env_clear().current_dir(backend.folder());
    command.envs(octopus.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.envs([("PORT", &*port), ("RATE_LIMIT_ENABLED", "false"), ("RUST_LOG", "warn")]);
    command.stderr(File::create(&log).unwrap());
    Server::run(command, port, log).await
}

/// Sends `write` as the request called `id`.
async fn send(writer: &mut Writer, write: Write, server: &Server, id: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = write.call(&client, &server.url("")).header("X-Request-Id", id).send().await;
    writer.acknowledge(write, &answer);
}

async fn every_write_is_on_the_disk_before_its_client_is_told(backend: Backend) {
    let Some(strace) = strace() else { return };
    let trace = backend.folder().join("trace");
    let server = traced(&backend, &strace, &trace).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let bootstrap = Call::new(client.request(Method::POST, server.url("/bootstrap")));
    let admin = bootstrap.header("X-Request-Id", "Bootstrap-0-").send().await.expect(200);
    let admin = admin["api_key"].as_str().unwrap().to_owned();
    let mut writer = Writer::new("w".to_owned(), admin);
    for round in 0..scale(2, 30) {
        for (kind, _) in Kind::ALL {
            // Others make what it changes, where there is nothing left.
            let write = loop {
                if let Some(write) = writer.make(kind) {
                    break write;
                }
                let other = writer.next();
                send(&mut writer, other, &server, "other").await;
            };
            send(&mut writer, write, &server, &format!("{kind:?}-{round}-")).await;
        }
    }
    assert_eq!(server.stop().0, Some(0));
    let kinds = Kind::ALL.map(|(kind, _)| format!("{kind:?}"));
    let found = answers(&whole(&trace).await);
    let (mut alone, mut syncs) = (BTreeMap::<&str, usize>::new(), 0);
    for answer in &found {
        let kind = answer.id.split('-').next().unwrap();
        // Where the server wrote for itself meanwhile, nobody could say which of the two was synced.
        if answer.commits == 1 {
            assert_eq!(answer.unsynced, 0, "{} was answered before it was synced", answer.id);
            *alone.entry(kind).or_default() += 1;
            syncs += 1;
        }
    }
    for kind in kinds.iter().map(String::as_str).chain(["Bootstrap"]) {
        assert!(alone.contains_key(kind), "{kind} was never seen alone: {found:#?}");
    }
    measured(&format!(
        "power loss, sqlite: {syncs} writes of all {} kinds, each synced (fdatasync of the write-ahead log) \
         before its answer was sent",
        kinds.len()
    ));
}

/// The trace, once the tracer has ended, too.
async fn whole(trace: &Path) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read(trace).unwrap();
        if text.windows(9).any(|end| end == b"+++ exite") {
            return text;
        }
        assert!(Instant::now() < end, "the trace has no end");
        sleep(Duration::from_millis(20)).await;
    }
}

/// An answer 2xx, and what happened since the one before.
#[derive(Debug)]
struct Answered {
    /// The `X-Request-Id`.
    id: String,
    /// Transactions that were written to the log.
    commits: usize,
    /// How many of them were not synced yet.
    unsynced: usize,
}

/// The answers in a trace, in their order. Of a call that took long there are two lines: between
/// them are those of other threads.
fn answers(trace: &[u8]) -> Vec<Answered> {
    let call = Regex::new(r"^(\d+) +(\w+)\(\d+<((?:\\x[0-9a-f]{2})*)>").unwrap();
    let resumed = Regex::new(r"^(\d+) +<\.\.\. (\w+) resumed>").unwrap();
    // Before each page stand 24 bytes: which one it is, and, if it is the last of a transaction, how
    // many pages the database has then.
    let frame = Regex::new(r#"pwrite64\(\d+<[^>]*>, "((?:\\x[0-9a-f]{2}){24})", 24, "#).unwrap();
    let id = Regex::new(r"(?i)x-request-id: ([\w-]+)").unwrap();
    let (mut found, mut commits, mut written, mut synced) = (vec![], 0, 0, 0);
    // What each thread's sync covers when it is done.
    let mut syncing = HashMap::new();
    for line in trace.split(|byte| *byte == b'\n') {
        let (thread, name, file) = if let Some(parts) = call.captures(line) {
            (parts[1].to_vec(), parts[2].to_vec(), decoded(&parts[3]))
        } else if let Some(parts) = resumed.captures(line) {
            (parts[1].to_vec(), parts[2].to_vec(), vec![])
        } else {
            continue;
        };
        let begins = !file.is_empty();
        let of_log = file.ends_with(b"-wal");
        match &*name {
            b"pwrite64" if of_log => {
                let header = frame.captures(line).map(|parts| decoded(&parts[1]));
                if header.is_some_and(|header| header[4..8] != [0; 4]) {
                    (commits, written) = (commits + 1, written + 1);
                }
            }
            b"fdatasync" | b"fsync" => {
                if of_log {
                    syncing.insert(thread.clone(), written);
                }
                if line.ends_with(b" = 0")
                    && let Some(covered) = syncing.remove(&thread)
                {
                    synced = synced.max(covered);
                }
            }
            // From its beginning on, as the client may have it then.
            _ if begins && file.starts_with(b"socket:") => {
                let text = decoded(line);
                let is_good = text.windows(10).any(|part| part == b"HTTP/1.1 2");
                if let Some(id) = id.captures(&text).filter(|_| is_good) {
                    let id = String::from_utf8_lossy(&id[1]).into_owned();
                    found.push(Answered { id, commits, unsynced: written - synced });
                    commits = 0;
                }
            }
            _ => {}
        }
    }
    found
}

/// The bytes that `\x41` and the like stand for, in order; everything else is left out.
fn decoded(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let parts = text.split("\\x").skip(1);
    parts.filter_map(|part| u8::from_str_radix(part.get(..2)?, 16).ok()).collect()
}
