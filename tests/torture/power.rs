//! Power loss. Killing a process does not simulate it, because the kernel still has the written
//! data. Instead, the tests trace system calls and assert that the write-ahead log was synced
//! before each response. On Postgres, durability is the responsibility of Postgres.

use super::load::{Kind, Write, Writer};
use crate::support::process::{Server, free_port, octopus_on};
use crate::support::{Backend, Call, measured, print_uncaptured, scale};
use regex::bytes::Regex;
use reqwest::Method;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The traced system calls: writes, syncs and responses.
const CALLS: &str = "trace=pwrite64,pwritev,fsync,fdatasync,write,writev,sendto,sendmsg";

/// The path of strace; `None` if it is not installed and not required.
fn strace() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("strace")).find(|p| p.exists());
    if found.is_none() {
        let required = std::env::var_os("OCTOPUS_REQUIRE_STRACE").is_some();
        assert!(!required, "strace is not installed, and OCTOPUS_REQUIRE_STRACE is set");
        print_uncaptured("\n*** POWER LOSS WAS NOT TESTED ***\nstrace is not installed.\n\n");
    }
    found
}

/// Starts a server whose system calls strace writes to `trace`.
async fn traced(backend: &Backend, strace: &Path, trace: &Path) -> Server {
    let (octopus, port, log) =
        (octopus_on(backend).await, free_port(), backend.folder().join("log"));
    let mut command = Command::new(strace);
    // With `-D`, strace runs as a child of the server, so that the process id is the server's.
    command.args(["-D", "-f", "--seccomp-bpf", "-q", "-y", "-xx", "-s", "1000", "-e", CALLS, "-o"]);
    command.arg(trace);
    command.arg(octopus.get_program()).env_clear().current_dir(backend.folder());
    command.envs(octopus.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.envs([("PORT", &*port), ("RATE_LIMIT_ENABLED", "false"), ("RUST_LOG", "warn")]);
    command.stderr(File::create(&log).unwrap());
    Server::run(command, port, log).await
}

/// Sends `write` with the request id `id`.
async fn send(writer: &mut Writer, write: Write, server: &Server, id: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = write.call(&client, &server.url("")).header("X-Request-Id", id).send().await;
    writer.acknowledge(write, &answer);
}

#[apply(on_sqlite!)]
async fn every_write_is_on_disk_before_its_response(backend: Backend) {
    let Some(strace) = strace() else { return };
    let trace = backend.folder().join("trace");
    let server = traced(&backend, &strace, &trace).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let bootstrap = Call::new(client.request(Method::POST, server.url("/bootstrap")));
    let admin = bootstrap.header("X-Request-Id", "Bootstrap-0-").send().await.expect(200);
    let admin = admin["api_key"].as_str().unwrap().to_owned();
    let mut writer = Writer::new("w".to_owned(), admin);
    let kinds = Kind::ALL.map(|(kind, _)| format!("{kind:?}"));
    let mut missing = kinds.to_vec();
    for round in 0..scale(20, 50) {
        if round >= scale(2, 30) && missing.is_empty() {
            break;
        }
        for (kind, _) in Kind::ALL {
            // Other writes create the entities that this kind needs.
            let write = loop {
                if let Some(write) = writer.make(kind) {
                    break write;
                }
                let other = writer.next();
                send(&mut writer, other, &server, "other").await;
            };
            send(&mut writer, write, &server, &format!("{kind:?}-{round}-")).await;
        }
        // Background jobs of a busy machine may write during any request, so another round follows.
        let found = answers(&fs::read(&trace).unwrap());
        missing.retain(|kind| !found.iter().any(|a| a.commits == 1 && a.kind() == kind));
    }
    assert_eq!(server.stop().0, Some(0));
    let found = answers(&whole(&trace).await);
    let (mut alone, mut syncs) = (BTreeMap::<&str, usize>::new(), 0);
    for answer in &found {
        let kind = answer.kind();
        // If a background job wrote in the meantime, the trace does not show which commit was
        // synced.
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

/// The complete trace, after strace has ended.
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

/// A 2xx response, and the commits since the previous one.
#[derive(Debug)]
struct Answered {
    /// The `X-Request-Id`.
    id: String,
    /// Transactions written to the write-ahead log.
    commits: usize,
    /// Transactions that were not synced yet.
    unsynced: usize,
}

impl Answered {
    fn kind(&self) -> &str {
        self.id.split('-').next().unwrap()
    }
}

/// The responses in a trace, in order. An interrupted call has two lines, with lines of other
/// threads between them.
fn answers(trace: &[u8]) -> Vec<Answered> {
    let call = Regex::new(r"^(\d+) +(\w+)\(\d+<((?:\\x[0-9a-f]{2})*)>").unwrap();
    let resumed = Regex::new(r"^(\d+) +<\.\.\. (\w+) resumed>").unwrap();
    // Each frame has a header of 24 bytes: the page number and, for the last page of a transaction,
    // the size of the database in pages (https://sqlite.org/fileformat2.html#walformat).
    let frame = Regex::new(r#"pwrite64\(\d+<[^>]*>, "((?:\\x[0-9a-f]{2}){24})", 24, "#).unwrap();
    let id = Regex::new(r"(?i)x-request-id: ([\w-]+)").unwrap();
    let (mut found, mut commits, mut written, mut synced) = (vec![], 0, 0, 0);
    // The number of commits that the running sync of each thread covers.
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
            // Counts from the start of the call, because the client may have the response then.
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

/// The bytes of the escapes such as `\x41`, in order, without the other characters.
fn decoded(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let parts = text.split("\\x").skip(1);
    parts.filter_map(|part| u8::from_str_radix(part.get(..2)?, 16).ok()).collect()
}
