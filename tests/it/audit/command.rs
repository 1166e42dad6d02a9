//! `octopus verify`, and the checkpoints of the audit chain in the server log.

use super::{CHANGED, append, intact, open};
use crate::support::Backend;
use crate::support::process::{Server, octopus_on, output_text};
use serde_json::{Value, json};
use std::fs;
use std::process::Output;
use std::time::Duration;
use tokio::time::sleep;

async fn run(backend: &Backend, arguments: &[&str]) -> Output {
    octopus_on(backend).await.arg("verify").args(arguments).output().unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The printed lines about the chain. backup::verifying tests the other checks.
fn printed_of_chain(output: &Output) -> String {
    let lines = printed(output);
    lines.split_inclusive('\n').filter(|line| !line.starts_with("ok      ")).collect()
}

/// The fields about the chain in the output of `--json`.
fn chain_of(output: &Output) -> Value {
    let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let fields = report.as_object_mut().unwrap();
    assert!(fields.remove("checks").is_some() && fields.remove("ok").is_some());
    report
}

#[apply(on_both!)]
async fn verify_reports_its_findings_and_fails_for_a_broken_chain(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 4).await;
    let anchor = intact(&app, 4, "as it was made").await.to_string();
    append(&app, 2).await;
    let head = intact(&app, 6, "as it was made").await.to_string();
    for arguments in [&[][..], &["--anchor", &anchor]] {
        let output = run(&backend, arguments).await;
        assert_eq!((output.status.code(), &*output_text(&output)), (Some(0), ""));
        let expected = format!(
            "The audit chain is intact: 6 entries.\nIts head, to be stored elsewhere: {head}\n"
        );
        assert_eq!(printed_of_chain(&output), expected);
    }
    let output = run(&backend, &["--json"]).await;
    assert_eq!(output.status.code(), Some(0));
    let expected = json!({"intact": true, "verified_rows": 6, "head": head, "removed_through": null, "first_bad": null, "key_differences": []});
    assert_eq!(chain_of(&output), expected);

    let other = format!("5:{}", "0".repeat(64));
    let output = run(&backend, &["--anchor", &other]).await;
    assert_eq!((output.status.code(), &*printed_of_chain(&output)), (Some(1), ""));
    assert!(
        output_text(&output).contains("broken at seq 5: the entry's hash differs from the anchor")
    );

    backend.execute("UPDATE api_key_audit_logs SET action = 'create' WHERE seq = 3").await;
    let output = run(&backend, &[]).await;
    assert_eq!((output.status.code(), &*printed_of_chain(&output)), (Some(1), ""));
    let expected = "octopus: the audit chain is broken at seq 3: the entry was changed; the 2 \
                    entries before it are intact\n";
    assert_eq!(output_text(&output), expected);
    let output = run(&backend, &["--json"]).await;
    assert_eq!(output.status.code(), Some(1));
    let fault = json!({"seq": 3, "problem": CHANGED});
    let expected = json!({"intact": false, "verified_rows": 2, "head": head, "removed_through": null, "first_bad": fault, "key_differences": []});
    assert_eq!(chain_of(&output), expected);

    let output = run(&backend, &["--anchor", "6"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(output_text(&output).contains("an anchor is SEQ:HASH"), "{}", output_text(&output));
}

#[apply(on_both!)]
async fn verify_neither_changes_nor_creates_anything(backend: Backend) {
    backend.start_empty();
    let output = run(&backend, &[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert_eq!(fs::read_dir(backend.folder()).unwrap().count(), 0, "nothing was made");
    if !backend.is_sqlite() {
        assert!(
            output_text(&output).contains("this database is empty"),
            "{}",
            output_text(&output)
        );
        backend.execute("CREATE TABLE api_keys ()").await; // there is no key file yet
        return;
    }
    assert!(output_text(&output).contains("octopus.db: No such file"), "{}", output_text(&output));
    fs::write(backend.folder().join("octopus.db"), "").unwrap();
    let output = run(&backend, &[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(output_text(&output).contains("this database is empty"), "{}", output_text(&output));
    let bytes = fs::read(backend.folder().join("octopus.db")).unwrap();
    assert!(bytes.is_empty(), "an empty file is left as it is");

    let app = open(&backend, &[]).await;
    append(&app, 3).await;
    app.db.close().await;
    let read = || fs::read(backend.folder().join("octopus.db")).unwrap();
    let before = read();
    assert!(run(&backend, &[]).await.status.success());
    fs::remove_file(backend.folder().join("octopus.db.audit-key")).unwrap();
    let output = run(&backend, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(output_text(&output).contains("octopus.db.audit-key"), "{}", output_text(&output));
    assert!(read() == before, "the database is as it was");
    let names = fs::read_dir(backend.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["octopus.db"], "no key was made");
}

/// Removes the rows after row 2 and moves the head back.
const CUT: &str = "DELETE FROM api_key_audit_logs WHERE seq > 2; UPDATE audit_head \
                   SET seq = 2, hash = (SELECT hash FROM api_key_audit_logs WHERE seq = 2)";

/// The anchors and findings of the checkpoints in `log`.
fn checkpoints(log: &str) -> Vec<(String, String)> {
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_chain =
        events.filter(|event| event["event"].as_str().unwrap_or("").starts_with("audit."));
    of_chain
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            (text("event"), text("anchor"))
        })
        .collect()
}

/// Starts a server and waits for its first checkpoint.
async fn started(backend: &Backend) -> Server {
    let server = Server::start(backend, &[]).await;
    for _ in 0..100 {
        if !server.events("audit.checkpoint").is_empty() {
            return server;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("no checkpoint:\n{}", server.log());
}

#[apply(on_both!)]
async fn a_tail_cut_off_while_the_server_runs_is_logged(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 3).await;
    for continues in [false, true] {
        append(&app, 2).await;
        let server = started(&backend).await;
        backend.execute(CUT).await;
        if continues {
            append(&app, 5).await;
        }
        let log = server.log_file();
        assert_eq!(server.stop().0, Some(0));
        let found = checkpoints(&fs::read_to_string(log).unwrap());
        let events: Vec<_> = found.iter().map(|(event, _)| &**event).collect();
        assert_eq!(events, ["audit.checkpoint", "audit.truncated", "audit.checkpoint"]);
        let end = if continues { "7:" } else { "2:" };
        assert!(found[1].1.starts_with(end) && found[1].1 == found[2].1, "{found:?}");
    }
}

#[apply(on_both!)]
async fn a_checkpoint_of_the_log_is_an_anchor(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 3).await;
    app.db.close().await;
    let server = started(&backend).await;
    let bootstrap = reqwest::Client::new().post(server.url("/bootstrap")).send().await.unwrap();
    assert_eq!(bootstrap.status(), 200);
    let log = server.log_file();
    assert_eq!(server.stop().0, Some(0));
    // One checkpoint at startup, and one at shutdown.
    let log = fs::read_to_string(log).unwrap();
    let anchors: Vec<String> = checkpoints(&log).into_iter().map(|(_, anchor)| anchor).collect();
    assert_eq!(anchors.len(), 2, "{log}");
    assert!(anchors[0].starts_with("3:") && anchors[1].starts_with("4:"), "{anchors:?}");
    for anchor in &anchors {
        assert!(run(&backend, &["--anchor", anchor]).await.status.success());
    }
    backend.execute(CUT).await;
    let output = run(&backend, &[]).await;
    assert!(output_text(&output).contains("API key 1: exists is true"), "its entry was cut off");
    backend.execute("DELETE FROM api_keys").await;
    assert!(run(&backend, &[]).await.status.success(), "the database alone does not show it");
    for anchor in &anchors {
        let output = run(&backend, &["--anchor", anchor]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(output_text(&output).contains("broken at seq 3: the chain is truncated here"));
    }
}
