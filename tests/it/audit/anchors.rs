//! Anchors: copies of the head of the chain that are stored outside the database.

use super::{append, intact, open};
use crate::support::Backend;
use crate::support::process::{Server, octopus_on, output_text};
use serde_json::Value;
use std::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const CUT: &str = "DELETE FROM api_key_audit_logs WHERE seq > 2; UPDATE audit_head \
                   SET seq = 2, hash = (SELECT hash FROM api_key_audit_logs WHERE seq = 2)";

#[apply(on_both!)]
async fn the_command_prints_the_end_of_the_chain(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 3).await;
    let head = intact(&app, 3, "as it was made").await;
    let output = octopus_on(&backend).await.arg("anchor").output().unwrap();
    assert_eq!((output.status.code(), &*output_text(&output)), (Some(0), ""));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{head}\n"));
}

#[apply(on_both!)]
async fn a_cut_off_tail_shows_against_the_anchor_file(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 4).await;
    let head = intact(&app, 4, "as it was made").await.to_string();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("anchors");
    let variables = [("AUDIT_ANCHOR_FILE", file.to_str().unwrap())];
    let run = async || {
        let mut command = octopus_on(&backend).await;
        command.arg("verify").env(variables[0].0, variables[0].1).output().unwrap()
    };
    assert!(run().await.status.success(), "no anchor yet");
    assert_eq!(Server::start(&backend, &variables).await.stop().0, Some(0));
    let anchors = fs::read_to_string(&file).unwrap();
    assert!(anchors.starts_with(&format!("{head} ")) && anchors.lines().count() == 1, "{anchors}");
    let output = run().await;
    assert!(output.status.success(), "{}", output_text(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains(&format!("Compared with the anchor {head} of ")), "{printed}");

    backend.execute(CUT).await;
    let expected = "the audit chain is broken at seq 3: the chain is truncated here";
    assert!(output_text(&run().await).contains(expected));
    // Later anchors and appended entries do not hide it.
    append(&app, 3).await;
    let server = Server::start(&backend, &variables).await;
    let log = server.log_file();
    assert_eq!(server.stop().0, Some(0));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("audit.truncated"), "{log}");
    assert_eq!(fs::read_to_string(&file).unwrap(), anchors, "nothing was added");
    assert!(output_text(&run().await).contains("the entry's hash differs from the anchor"));
    // An unreadable anchor file is an error.
    fs::write(&file, "no anchor\n").unwrap();
    let output = run().await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output_text(&output).contains("its last line is not an anchor"),
        "{}",
        output_text(&output)
    );
}

#[apply(on_both!)]
async fn a_line_that_was_cut_off_does_not_stop_the_anchor_file(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 2).await;
    let first = intact(&app, 2, "as it was made").await.to_string();
    append(&app, 1).await;
    let second = intact(&app, 3, "as it was made").await.to_string();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("anchors");
    for cut_off in ["3", "3:", "3:0a1b"] {
        fs::write(&file, format!("{first} 2026-01-01T00:00:00Z\n{cut_off}")).unwrap();
        let variables = [("AUDIT_ANCHOR_FILE", file.to_str().unwrap())];
        let mut verify = octopus_on(&backend).await;
        let output = verify.arg("verify").env(variables[0].0, variables[0].1).output().unwrap();
        assert!(output.status.success(), "{}", output_text(&output));
        assert_eq!(Server::start(&backend, &variables).await.stop().0, Some(0));
        let anchors = fs::read_to_string(&file).unwrap();
        let newest = anchors.lines().last().unwrap();
        assert!(newest.starts_with(&format!("{second} ")), "{anchors}");
    }
}

#[apply(on_both!)]
async fn the_end_of_the_chain_is_sent_to_the_anchor_url(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 2).await;
    let head = intact(&app, 2, "as it was made").await.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/take/hunter2", listener.local_addr().unwrap());
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        while !text.contains('}') {
            let mut bytes = [0; 1024];
            let n = stream.read(&mut bytes).await.unwrap();
            text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
        let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        text
    });
    let server = Server::start(&backend, &[("AUDIT_ANCHOR_URL", &url)]).await;
    let text = receiver.await.unwrap();
    assert!(text.starts_with("POST /take/hunter2 HTTP/1.1"), "{text}");
    let body: Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
    assert_eq!(body["anchor"], head);
    let log = server.log_file();
    server.stop();
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("anchor_failed") && !log.contains("hunter2"), "{log}");
}
