//! Commands whose output cannot be written: none panics, and no secret is kept that was not shown.

use crate::support::Backend;
use crate::support::process::{octopus, octopus_on, output_text};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A standard output that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sink {
    FullDisk,
    ClosedPipe,
}

impl Sink {
    fn stdio(self) -> Stdio {
        match self {
            Self::FullDisk => OpenOptions::new().write(true).open("/dev/full").unwrap().into(),
            Self::ClosedPipe => std::io::pipe().unwrap().1.into(),
        }
    }

    /// Runs `command` with this output. It must fail without a panic.
    fn run(self, command: &mut Command, what: &str, is_secret: bool) {
        let child = command.stdout(self.stdio()).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        let text = output_text(&output);
        assert!(!text.contains("panicked"), "{what} to {self:?}: {text}");
        let is_quiet = self == Self::ClosedPipe && !is_secret;
        let expected = if is_quiet { 141 } else { 1 };
        assert_eq!(output.status.code(), Some(expected), "{what} to {self:?}: {text}");
        if is_quiet {
            assert!(text.is_empty(), "{what} to {self:?}: {text}");
        } else {
            assert!(text.starts_with("octopus: cannot write "), "{what} to {self:?}: {text}");
            assert!(text.contains("standard output: "), "{what} to {self:?}: {text}");
        }
    }
}

async fn run(backend: &Backend, arguments: &[&str]) -> Output {
    let output = octopus_on(backend).await.args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", output_text(&output));
    output
}

/// All keys as JSON text.
async fn keys(backend: &Backend) -> String {
    let output = run(backend, &["keys", "list", "--json", "--include-inactive"]).await;
    String::from_utf8(output.stdout).unwrap()
}

/// An empty database of the FastAPI app.
async fn fastapi_database(folder: &Path) -> PathBuf {
    let path = folder.join("fastapi.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    let tables = "CREATE TABLE users (id INTEGER PRIMARY KEY, email, username, hashed_password);
        CREATE TABLE conversations (id INTEGER PRIMARY KEY);
        CREATE TABLE messages (id INTEGER PRIMARY KEY, conversation_id, role, content);";
    connection.execute(tables).await.unwrap();
    connection.close().await.unwrap();
    path
}

#[apply(on_both!)]
async fn a_secret_that_cannot_be_shown_is_not_kept(backend: Backend) {
    run(&backend, &["migrate"]).await;
    for sink in [Sink::FullDisk, Sink::ClosedPipe] {
        sink.run(octopus_on(&backend).await.arg("bootstrap"), "bootstrap", true);
        assert_eq!(keys(&backend).await.trim(), "[]", "no key was created");
    }
    run(&backend, &["bootstrap"]).await;
    let before = keys(&backend).await;
    // Postgres does not reuse the ids of keys that were not committed.
    let listed: serde_json::Value = serde_json::from_str(&before).unwrap();
    let id = listed[0]["id"].to_string();
    let commands: [&[&str]; 4] = [
        &["keys", "create", "--name", "unseen"],
        &["keys", "create", "--name", "unseen", "--json"],
        &["keys", "rotate", &id],
        &["keys", "rotate", &id, "--grace-period-seconds", "60", "--json"],
    ];
    for sink in [Sink::FullDisk, Sink::ClosedPipe] {
        for arguments in commands {
            let what = arguments.join(" ");
            sink.run(octopus_on(&backend).await.args(arguments), &what, true);
            assert_eq!(keys(&backend).await, before, "{what} changed a key");
        }
    }
    run(&backend, &["verify"]).await;
}

#[apply(on_both!)]
async fn a_command_whose_output_cannot_be_written_does_not_panic(backend: Backend) {
    run(&backend, &["migrate"]).await;
    run(&backend, &["bootstrap"]).await;
    run(&backend, &["keys", "create", "--name", "second"]).await;
    let source = fastapi_database(backend.folder()).await;
    let mut commands: Vec<Vec<&str>> = vec![
        vec!["migrate"],
        vec!["keys", "list"],
        vec!["keys", "list", "--json"],
        vec!["keys", "deactivate", "2"],
        vec!["keys", "deactivate", "2", "--json"],
        vec!["import", source.to_str().unwrap()],
        vec!["verify"],
        vec!["verify", "--json"],
        vec!["anchor"],
        vec!["openapi"],
    ];
    if backend.is_sqlite() {
        run(&backend, &["backup", "good.db"]).await;
        commands.push(vec!["backup", "b.db", "--force"]);
        commands.push(vec!["restore", "good.db"]);
    }
    for sink in [Sink::FullDisk, Sink::ClosedPipe] {
        for arguments in &commands {
            let what = arguments.join(" ");
            sink.run(octopus_on(&backend).await.args(arguments), &what, false);
        }
        let folder = tempfile::tempdir().unwrap();
        for what in ["init", "init again"] {
            sink.run(octopus(folder.path()).arg("init"), what, false);
            assert!(folder.path().join(".env").exists(), "it contains the token");
        }
    }
}

#[apply(on_sqlite!)]
async fn a_failing_standard_error_stops_no_command(backend: Backend) {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = octopus_on(&backend).await;
    let output = command.arg("bootstrap").stderr(full()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"octopus_"));
    let mut command = octopus_on(&backend).await;
    let output = command.arg("bootstrap").stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "the error itself cannot be shown");
}

/// `println!` panics if the output cannot be written. `cli/output.rs` returns the error.
#[apply(without_database!)]
fn no_command_prints_with_a_macro_that_panics() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folder = fs::read_dir(root.join("cli")).unwrap().map(|entry| entry.unwrap().path());
    let mut checked = 0;
    for file in folder.chain([root.join("main.rs")]) {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let is_macro = line.contains("println!") || line.contains("print!");
            assert!(!is_macro, "{}:{number}: {line}", file.display());
        }
        checked += 1;
    }
    assert!(checked > 15, "{checked} files");
}
