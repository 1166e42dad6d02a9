//! The examples in the documents about keys, users and conversations work: every `sh` block is run,
//! in order, as a reader would in one terminal, against a real server.
//!
//! A block must succeed, and must print what the `json` or `text` block after it shows; a block
//! without one may print anything. Values that differ between runs (times before 2090, secrets,
//! hashes, request ids, seconds to wait) are first replaced by a placeholder on both sides. JSON is
//! then compared as values, so line breaks and the order of fields do not count; text is compared
//! line by line. Blocks in other languages are not run.

use crate::support::{Backend, TestApp};
use regex::Regex;
use serde_json::{Deserializer, Value};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A block to run, and its expected output.
struct Block {
    line: usize,
    script: String,
    shown: Option<(Language, String)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Language {
    Sh,
    Json,
    Text,
    Other,
}

#[apply(on_both!)]
async fn the_examples_of_api_key_management_work(backend: Backend) {
    run_document(&backend, "API_KEY_MANAGEMENT.md").await;
}

#[apply(on_both!)]
async fn the_examples_of_api_key_security_work(backend: Backend) {
    run_document(&backend, "API_KEY_SECURITY.md").await;
}

#[apply(on_both!)]
async fn the_examples_of_the_audit_log_work(backend: Backend) {
    run_document(&backend, "AUDIT_LOG.md").await;
}

#[apply(on_both!)]
async fn the_examples_of_users_work(backend: Backend) {
    run_document(&backend, "USERS.md").await;
}

#[apply(on_both!)]
async fn the_examples_of_conversations_work(backend: Backend) {
    run_document(&backend, "CONVERSATIONS.md").await;
}

#[apply(on_both!)]
async fn the_examples_of_pagination_work(backend: Backend) {
    run_document(&backend, "PAGINATION.md").await;
}

async fn run_document(backend: &Backend, document: &str) {
    check_tools();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(document);
    let blocks = blocks(&fs::read_to_string(path).unwrap(), document);
    assert!(!blocks.is_empty(), "{document} has nothing to run");
    // On SQLite the key file beside the database holds it.
    let audit_key = "0123456789abcdef".repeat(4);
    let variables = if backend.is_sqlite() { vec![] } else { vec![("AUDIT_KEY", &*audit_key)] };
    let app = TestApp::with(backend, &variables).await;

    // One shell runs all blocks, because variables of one are used in the next. The folder holds
    // the output of each block, and a mark for each that succeeded.
    let folder = backend.folder().join("document");
    fs::create_dir(&folder).unwrap();
    let mut script = String::from("set -euo pipefail\n");
    for (n, block) in blocks.iter().enumerate() {
        let marks = folder.display();
        let commands = &block.script;
        let _ = write!(script, "exec >{marks}/{n}.out\n{commands}: >{marks}/{n}.done\n");
    }
    let program = Path::new(env!("CARGO_BIN_EXE_octopus")).parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([program].into_iter().chain(std::env::split_paths(&path)));
    let mut bash = Command::new("bash");
    bash.arg("-c").arg(script).env_clear().current_dir(&folder).env("PATH", path.unwrap());
    bash.env("HOME", &folder).env("OCTOPUS_URL", format!("http://{}", app.address));
    bash.env("DATABASE_URL", backend.url().await).envs(variables);
    let output = tokio::task::spawn_blocking(move || bash.output()).await.unwrap().unwrap();

    let stderr = String::from_utf8_lossy(&output.stderr);
    for (n, block) in blocks.iter().enumerate() {
        let place = format!("{document}, line {}", block.line);
        let printed = fs::read_to_string(folder.join(format!("{n}.out"))).unwrap_or_default();
        let succeeded = folder.join(format!("{n}.done")).exists();
        assert!(succeeded, "{place} failed:\n{}\n{printed}\n{stderr}", block.script);
        match &block.shown {
            Some((Language::Json, shown)) => {
                assert_eq!(values(&printed, &place), values(shown, &place), "{place}:\n{printed}");
            }
            Some((_, shown)) => assert_eq!(lines(&printed), lines(shown), "{place}"),
            None => {}
        }
    }
    assert!(output.status.success(), "{document}: {stderr}");
    app.stop().await.unwrap();
}

fn check_tools() {
    for tool in ["bash", "curl", "jq", "openssl"] {
        let found = Command::new(tool).arg("--help").output();
        assert!(found.is_ok(), "the documents are run with {tool}, which is not installed");
    }
    let help = Command::new("curl").args(["--help", "all"]).output().unwrap();
    let has_json_option = String::from_utf8_lossy(&help.stdout).contains("--json");
    assert!(
        has_json_option,
        "the documents are run with curl --json: curl 7.82 or later is needed"
    );
}

/// The blocks of a document to run, each with its expected output.
fn blocks(markdown: &str, document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = vec![];
    let mut lines = markdown.lines().enumerate();
    while let Some((n, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let language = match language {
            "sh" => Language::Sh,
            "json" => Language::Json,
            "text" => Language::Text,
            _ => Language::Other,
        };
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let text = inside.fold(String::new(), |text, line| text + line + "\n");
        match language {
            Language::Sh => blocks.push(Block { line: n + 1, script: text, shown: None }),
            Language::Json | Language::Text => {
                let last = blocks.last_mut().filter(|block| block.shown.is_none());
                let of =
                    last.unwrap_or_else(|| panic!("{document}, line {}: shown by what?", n + 1));
                of.shown = Some((language, text));
            }
            Language::Other => {}
        }
    }
    blocks
}

/// Replaces values that differ between runs by placeholders.
fn normalized(text: &str) -> String {
    const SECRET: &str = "oct(opus|s|r)_[0-9A-Za-z]{49}";
    const HASH: &str = r"\b[0-9a-f]{64}\b";
    const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
    const TIME: &str = r"20[0-8][0-9]-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?Z";
    const WAIT: &str = "(retry-after: |;t=)[0-9]+";
    let names = [
        (SECRET, "a secret"),
        (HASH, "a hash"),
        (UUID, "a request"),
        (TIME, "a time"),
        (WAIT, "${1}seconds"),
    ];
    names.iter().fold(text.to_owned(), |text, (pattern, name)| {
        Regex::new(pattern).unwrap().replace_all(&text, *name).into_owned()
    })
}

#[track_caller]
fn values(text: &str, place: &str) -> Vec<Value> {
    let values = Deserializer::from_str(&normalized(text)).into_iter().collect::<Result<_, _>>();
    values.unwrap_or_else(|error| panic!("{place}: {error}:\n{text}"))
}

fn lines(text: &str) -> Vec<String> {
    normalized(text).lines().map(|line| line.trim_end().to_owned()).collect()
}
