//! Servers with few file descriptors, and a server that runs out of them.

use super::calls::{Caller, MASTER, PLAIN};
use super::disk::{PATIENCE, import};
use super::mounts::skipped;
use crate::support::process::{Server, free_port, octopus_on};
use crate::support::{Backend, measured, scale};
use serde_json::json;
use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Settings that keep idle connections open during the test.
const PATIENT: [(&str, &str); 3] = [
    ("HEADER_TIMEOUT_SECONDS", "120"),
    ("IDLE_TIMEOUT_SECONDS", "120"),
    // All connections come from one address.
    ("MAX_CONNECTIONS_PER_CLIENT", "1000"),
];

/// Sends a request on an open connection and asserts a 200.
async fn ask(stream: &mut TcpStream, request: &str, body: &str) {
    let length = body.len();
    let request = format!(
        "{request} HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {MASTER}\r\nContent-Type: \
         application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 16 * 1024];
    let read = timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer").unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Sends `times` writes and reads on an open connection and asserts their success. The writes change
/// the first user.
async fn assert_served(stream: &mut TcpStream, times: usize) {
    for n in 0..times {
        let body = json!({"full_name": format!("Ada {n}")}).to_string();
        ask(stream, "PUT /api/v1/users/1", &body).await;
        ask(stream, "GET /api/v1/users", "").await;
        sleep(Duration::from_millis(20)).await;
    }
}

/// Opens and holds so many connections. A connection attempt is abandoned after `patience`.
async fn crowd(server: &Server, connections: usize, patience: Duration) -> Vec<TcpStream> {
    let mut held = vec![];
    for _ in 0..connections {
        let connecting = TcpStream::connect(server.address());
        if let Ok(Ok(stream)) = timeout(patience, connecting).await {
            held.push(stream);
        }
    }
    held
}

async fn is_ready_again(server: &Server) {
    let end = Instant::now() + PATIENCE;
    while !reqwest::get(server.url("/ready")).await.is_ok_and(|r| r.status() == 200) {
        assert!(Instant::now() < end, "{}", server.log());
        sleep(Duration::from_millis(50)).await;
    }
}

#[apply(on_both!)]
async fn connections_leave_room_for_the_files_of_the_database(backend: Backend) {
    for limit in [128, 80, 48] {
        let (port, log) = (free_port(), backend.folder().join("log"));
        let octopus = octopus_on(&backend).await;
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\"")]).arg(octopus.get_program());
        command.env_clear().current_dir(backend.folder()).envs(PLAIN).envs(PATIENT);
        command.env("PORT", &port).envs(backend.variables().await);
        command.stderr(File::create(&log).unwrap());
        let server = Server::run(command, port, log).await;
        assert_eq!(server.events("server.file_limit_low").len(), 1, "{}", server.log());
        // The servers use one database, so the user is there from the second on.
        let registered = Caller::of(&server).register("ada").await.status;
        assert_eq!(registered, if limit == 128 { 201 } else { 400 });
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        ask(&mut stream, "GET /api/v1/users", "").await;
        let held = crowd(&server, 200, PATIENCE).await;
        // No connection had to wait for a file descriptor. Surplus connections were refused.
        assert_eq!(held.len(), 200, "some were not accepted");
        // More concurrent requests than the database can open connections for.
        let mut others = tokio::task::JoinSet::new();
        let mut most = 0;
        assert_served(&mut stream, scale(10, 200)).await;
        for mut one in held {
            others.spawn(async move {
                let mut answer = String::new();
                let ask = format!(
                    "GET /api/v1/users HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {MASTER}\r\n\
                     Connection: close\r\n\r\n"
                );
                // A refused connection may be closed already.
                let _ = one.write_all(ask.as_bytes()).await;
                let _ = timeout(PATIENCE, one.read_to_string(&mut answer)).await;
                answer.get(9..12).map(str::to_owned)
            });
            most = most.max(own_files(&server, limit));
        }
        let answers = others.join_all().await;
        let served = answers.iter().filter(|status| status.as_deref() == Some("200")).count();
        let is_answered = |status: &Option<String>| {
            status.as_deref().is_none_or(|status| status == "200" || status == "503")
        };
        assert!(answers.iter().all(is_answered), "{answers:?}");
        measured(&format!(
            "few files: {limit} allowed, 200 connections: {served} served at once, at most {most} \
             files seen in use"
        ));
        assert!(served >= 4, "{served} were served: {answers:?}");
        assert!(server.events("database.failed").is_empty(), "{}", server.log());
        assert!(most + 4 <= limit, "{most} files of {limit}");
        is_ready_again(&server).await;
        assert_eq!(server.stop().0, Some(0));
    }
}

/// The number of files that `server` has open below this limit. Files inherited from the shell of
/// the tests may have higher numbers.
fn own_files(server: &Server, limit: usize) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let number = |file: std::io::Result<std::fs::DirEntry>| {
        file.ok()?.file_name().to_str()?.parse::<usize>().ok()
    };
    files.filter_map(number).filter(|number| *number < limit).count()
}

/// Sets the file limit of `server`, possibly below the number of its open files.
fn allow(server: &Server, files: usize) -> Option<()> {
    let mut prlimit = Command::new("prlimit");
    // The hard limit stays, so that the soft limit can be raised again without privileges.
    prlimit.args(["--pid", &server.pid().to_string(), &format!("--nofile={files}:")]);
    match prlimit.output() {
        Ok(output) if output.status.success() => Some(()),
        Ok(output) => skipped("prlimit", &String::from_utf8_lossy(&output.stderr)),
        Err(error) => skipped("prlimit", &error.to_string()),
    }
}

#[apply(on_both!)]
async fn a_server_without_free_file_descriptors_keeps_serving(backend: Backend) {
    let variables = [PLAIN.as_slice(), &PATIENT].concat();
    let server = Server::start(&backend, &variables).await;
    let caller = Caller::of(&server);
    caller.register("ada").await.expect(201);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    assert_served(&mut stream, 3).await;
    // A connection that is open already.
    caller.get("/api/v1/users").send().await.expect(200);
    if allow(&server, 1).is_none() {
        return;
    }
    let mut held = crowd(&server, 20, Duration::from_millis(500)).await;
    let (busy, began) = (server.processor(), Instant::now());
    // New connections are not accepted.
    let newcomer = held.last_mut().unwrap();
    newcomer.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    assert!(timeout(Duration::from_millis(500), newcomer.read(&mut answer)).await.is_err());
    assert_served(&mut stream, scale(40, 1000)).await;
    // A request that needs a file is refused with the reason.
    let refusal = import(&caller).await;
    refusal.refused(503, "Too many files are open to buffer the import");
    let (busy, waited) = (server.processor() - busy, began.elapsed());
    assert!(busy < waited.as_secs_f64() * 0.75, "{busy} s of processor time in {waited:?}");

    allow(&server, 1024).unwrap();
    timeout(PATIENCE, newcomer.read_exact(&mut answer))
        .await
        .expect("accepted in the end")
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(held);
    is_ready_again(&server).await;
    import(&caller).await.expect(200);
    assert_served(&mut stream, 3).await;
    measured(&format!("no file left, {waited:.1?}: {busy:.2} s of processor time, no 5xx"));
    assert_eq!(server.stop().0, Some(0));
}
