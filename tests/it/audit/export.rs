//! The export of the audit log, and the script that verifies an export without Octopus.

use super::{append, get, intact, open};
use crate::support::{Backend, TestApp};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const EXPORT: &str = "/api/v1/audit/export";
const OLD: &str = "the key that was changed: 32 bytes or more";
const NEW: &str = "the key that is current: 32 bytes or more";

async fn lines(app: &TestApp, key: &str, query: &str) -> Vec<Value> {
    let answer = app.get(&format!("{EXPORT}{query}")).key(key).open().await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let text = answer.text().await.unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn seqs(lines: &[Value]) -> Vec<i64> {
    lines.iter().map(|line| line["seq"].as_i64().unwrap()).collect()
}

#[apply(on_both!)]
async fn an_export_has_every_entry_and_continues_where_another_ended(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    append(&app.state, 1200).await; // more than one batch
    let all = lines(&app, &admin, "").await;
    assert_eq!(seqs(&all), (1..=1201).collect::<Vec<_>>());
    let last = all.last().unwrap();
    let newest = get(&app, &admin, "/api/v1/api-keys/audit-logs?limit=1").await;
    assert_eq!(last["hash"], newest[0]["hash"]);
    let payload: Value = serde_json::from_str(last["payload"].as_str().unwrap()).unwrap();
    assert_eq!((&payload["seq"], &payload["action"]), (&json!(1201), &newest[0]["action"]));
    assert!(last["hash_key_id"].is_u64());
    assert_eq!(seqs(&lines(&app, &admin, "?after=1198").await), [1199, 1200, 1201]);
    assert_eq!(seqs(&lines(&app, &admin, "?after=2&limit=2").await), [3, 4]);
    assert_eq!(lines(&app, &admin, "?after=1201").await, Vec::<Value>::new());
    for (query, place) in [("?after=-1", "query.after"), ("?limit=0", "query.limit")] {
        app.get(&format!("{EXPORT}{query}")).key(&admin).send().await.invalid(&[place]);
    }
}

/// Runs the script on an export with these lines.
fn script(folder: &Path, lines: &[Value], arguments: &[&str]) -> Output {
    let export = folder.join("export.jsonl");
    let text = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n";
    fs::write(&export, text).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/verify_audit.py");
    Command::new("python3").arg(script).arg(export).args(arguments).output().unwrap()
}

#[apply(on_both!)]
async fn the_script_verifies_an_export_and_finds_what_was_changed(backend: Backend) {
    let first = open(&backend, &[("AUDIT_KEY", OLD)]).await;
    append(&first, 3).await;
    let variables = [("AUDIT_KEY", NEW), ("AUDIT_KEYS_OLD", OLD), ("RATE_LIMIT_ENABLED", "false")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let all = lines(&app, &admin, "").await;
    let head = intact(&app.state, 5, "three, the change of the key, and the first key").await;
    let folder = tempfile::tempdir().unwrap();
    let key = |name: &str, secret: &str| -> String {
        let file: PathBuf = folder.path().join(name);
        fs::write(&file, format!("{secret}\n")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (new, old) = (key("new", NEW), key("old", OLD));
    let run = |lines: &[Value], arguments: &[&str]| {
        let output = script(folder.path(), lines, arguments);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (text, keys) = (head.to_string(), [&*new, &*old]);
    let good = (Some(0), format!("{text}\n"));
    assert_eq!(run(&all, &keys), good);
    assert_eq!(run(&all, &[&new, &old, "--anchor", &text]), good);
    let start = format!("2:{}", all[1]["hash"].as_str().unwrap());
    assert_eq!(run(&all[2..], &[&new, &old, "--start", &start]), good);

    let bad = |found: (Option<i32>, String), expected: &str| {
        assert_eq!(found, (Some(1), format!("broken at seq {expected}\n")));
    };
    let replaced = "it was changed, moved or does not follow the previous entry";
    let mut changed = all.clone();
    let payload = changed[1]["payload"].as_str().unwrap().replace("192.0.2.1", "192.0.2.2");
    assert_ne!(changed[1]["payload"], payload.as_str());
    changed[1]["payload"] = payload.into();
    bad(run(&changed, &keys), &format!("2: {replaced}"));
    let mut missing = all.clone();
    missing.remove(2);
    bad(run(&missing, &keys), "3: an entry is missing or was inserted");
    bad(run(&all, &[&new]), "1: it was signed with an unknown key");
    bad(run(&all[..3], &keys), "3: the last entry was not signed with the current key");
    let cut = run(&all[..4], &[&new, &old, "--anchor", &text]);
    bad(cut, "5: the log is truncated here: the anchor is later");
    let other = format!("5:{}", "0".repeat(64));
    let other = run(&all, &[&new, &old, "--anchor", &other]);
    bad(other, "5: it is not the entry of the anchor");
}
