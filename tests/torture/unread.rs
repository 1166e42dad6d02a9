//! The memory of the real program under clients that request large responses and do not read them,
//! and under concurrent large bodies.

use super::calls::{Caller, MASTER, PLAIN};
use crate::support::process::Server;
use crate::support::{Backend, measured, scale};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

const CONVERSATIONS: &str = "/api/v1/conversations";
/// Kilobytes that the server may use beyond its idle memory.
const MOST: u64 = 200 * 1024;
/// Concurrent requests.
const CLIENTS: usize = 60;

/// Sends a request on a connection with a small receive buffer.
async fn ask(server: &Server, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = socket.connect(server.address().parse().unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Adds 16 MiB of messages to conversation 1.
async fn fill(backend: &Backend) {
    backend.fill_conversation(41, &"😀".repeat(100_000)).await;
}

/// The result of `work`, and the peak memory of the server during it, in kilobytes.
async fn most_during<T>(server: &Server, work: impl Future<Output = T>) -> (T, u64) {
    tokio::pin!(work);
    let mut most = 0;
    loop {
        tokio::select! {
            result = &mut work => return (result, most.max(server.resident())),
            () = sleep(Duration::from_millis(20)) => most = most.max(server.resident()),
        }
    }
}

#[apply(on_both!)]
async fn large_unread_responses_cost_little_memory(backend: Backend) {
    let server = Server::start(&backend, &PLAIN).await;
    let caller = Caller::of(&server);
    let ada = caller.register("ada").await.expect(201)["id"].as_i64().unwrap();
    let body = json!({"title": "a talk", "participant_ids": [ada]});
    caller.post(CONVERSATIONS, body).send().await.expect(201);
    fill(&backend).await;
    let token = caller.login("ada").await.expect(200)["access_token"].as_str().unwrap().to_owned();
    let of_user = format!("Authorization: Bearer {token}");
    let of_key = format!("Octopus-API-Key: {MASTER}");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\n");
    let body = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    let whole = format!("{CONVERSATIONS}/1?message_limit=1000");
    let kinds = [
        ("a conversation", get(&whole)),
        ("a conversation, gzip", format!("{}Accept-Encoding: br, gzip\r\n", get(&whole))),
        ("conversations", get(&format!("{CONVERSATIONS}?message_limit=1000"))),
        ("conversations of a user", get(&format!("{CONVERSATIONS}/user/{ada}?message_limit=1000"))),
        ("messages", get(&format!("{CONVERSATIONS}/1/messages?limit=1000"))),
        ("an export", get(&format!("{CONVERSATIONS}/1/export"))),
        ("a change", format!("PUT {CONVERSATIONS}/1 HTTP/1.1\r\n{body}")),
    ];
    let idle = server.resident();
    let mut figures = vec![];
    for (name, head) in &kinds {
        for (who, credential) in [("key", &of_key), ("user", &of_user)] {
            if who == "user" && head.starts_with("PUT") {
                continue;
            }
            let end = if head.starts_with("PUT") { "{}" } else { "" };
            let request = format!("{head}Host: x\r\n{credential}\r\n\r\n{end}");
            let mut unread = vec![];
            for _ in 0..CLIENTS {
                unread.push(ask(&server, &request).await);
            }
            // Until all responses have begun, and a little longer.
            let answering = async {
                let mut answered = 0;
                for stream in &mut unread {
                    let mut start = [0; 12];
                    stream.read_exact(&mut start).await.unwrap();
                    assert!([b"HTTP/1.1 200", b"HTTP/1.1 503"].contains(&&start), "{name}");
                    answered += usize::from(&start == b"HTTP/1.1 200");
                }
                sleep(scale(Duration::from_millis(500), Duration::from_secs(5))).await;
                answered
            };
            let (answered, most) = most_during(&server, answering).await;
            let most = most.saturating_sub(idle);
            figures.push(format!("{name} ({who}) {} MB", most / 1024));
            assert!(most < MOST, "{name} ({who}): {most} kB more; {figures:?}");
            assert!(answered > 0, "{name} ({who}): all are refused");
        }
    }
    // Other clients are served, and a client that reads gets the whole response.
    let answer = caller.get(&whole).send().await.expect(200);
    assert_eq!(answer["messages"].as_array().unwrap().len(), 41);
    let kind = if backend.is_sqlite() { "sqlite" } else { "postgres" };
    measured(&format!(
        "memory, {kind}: {CLIENTS} unread answers of 16 MiB, more than {} MB idle: {}",
        idle / 1024,
        figures.join(", ")
    ));
}

#[apply(on_both!)]
async fn concurrent_large_bodies_cost_little_memory(backend: Backend) {
    // A batch of 15 MB takes a while.
    let variables = [PLAIN.as_slice(), &[("REQUEST_TIMEOUT_SECONDS", "120")]].concat();
    let server = Server::start(&backend, &variables).await;
    let caller = Caller::of(&server);
    caller.post(CONVERSATIONS, json!({"title": "a talk"})).send().await.expect(201);
    let message = json!({"role": "user", "content": "🐙".repeat(25_000)});
    let batch = json!({"messages": vec![message; 150]}).to_string();
    let head = format!(
        "POST {CONVERSATIONS}/1/messages/batch HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {MASTER}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        batch.len()
    );
    let idle = server.resident();
    let mut held = vec![];
    for _ in 0..CLIENTS {
        let mut stream = ask(&server, &head).await;
        let almost = batch.as_bytes()[..batch.len() - 1].to_vec();
        held.push(tokio::spawn(async move {
            let _ = stream.write_all(&almost).await;
            let mut start = [0; 12];
            // Waits for the accepted requests.
            let refused =
                tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut start));
            refused.await.is_ok_and(|read| read.is_ok() && &start == b"HTTP/1.1 503")
        }));
    }
    let ((), most) = most_during(&server, sleep(Duration::from_secs(5))).await;
    let most = most.saturating_sub(idle);
    let mut refused = 0;
    for one in held {
        refused += usize::from(one.await.unwrap());
    }
    assert!(most < 2 * MOST, "{most} kB more");
    assert!((CLIENTS / 2..CLIENTS).contains(&refused), "{refused} were refused");
    // A single batch is accepted.
    let alone = caller
        .post(&format!("{CONVERSATIONS}/1/messages/batch"), serde_json::from_str(&batch).unwrap());
    alone.send().await.expect(201);
    let kind = if backend.is_sqlite() { "sqlite" } else { "postgres" };
    measured(&format!(
        "memory, {kind}: {CLIENTS} batches of 15 MB held back before their last byte: {} MB more than \
         {} MB idle, {refused} refused",
        most / 1024,
        idle / 1024
    ));
}
