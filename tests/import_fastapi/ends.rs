//! Imports that are killed, stopped, or cannot write their report.

use super::source::{MASTER, Source};
use super::{import, run};
use crate::support::process::octopus_on;
use crate::support::{Backend, TestApp, measured, scale};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, Executor};
use sqlx_postgres::PgConnection;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const MESSAGES: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM messages";
const USERS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM users";

/// The command that imports `source`, with its temporary files in a separate folder.
async fn command(backend: &Backend, source: &Source) -> Command {
    let temporary = backend.folder().join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut command = octopus_on(backend).await;
    command.env("TMPDIR", temporary).arg("import").arg(&source.path);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same command, run by a shell after `setting`.
fn through_shell(setting: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{setting}; exec \"$0\" \"$@\"")).arg(command.get_program());
    shell.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The temporary files of reports in the test's folder.
fn unfinished(backend: &Backend) -> Vec<PathBuf> {
    let entries = fs::read_dir(backend.folder()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".tmp")).collect()
}

/// Blocks imports into Postgres after they have read the original and before they write.
struct Hold(PgConnection);

impl Hold {
    async fn begin(backend: &Backend) -> Self {
        TestApp::new(backend).await.stop().await.unwrap();
        let mut connection = PgConnection::connect(&backend.url().await).await.unwrap();
        connection.execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.unwrap();
        Self(connection)
    }

    async fn wait_for_blocked_import(&mut self) {
        let sql = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND database = \
            (SELECT oid FROM pg_database WHERE datname = current_database())";
        let end = Instant::now() + Duration::from_mins(1);
        while Instant::now() < end {
            let waiting: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.0).await.unwrap();
            if waiting > 0 {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("no import is blocked");
    }

    async fn end(mut self) {
        self.0.execute("ROLLBACK").await.unwrap();
        self.0.close().await.unwrap();
    }
}

/// Whether a process holds a lock to write messages.
async fn is_written_to(backend: &Backend) -> bool {
    if backend.is_sqlite() {
        let path = backend.folder().join("octopus.db");
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::ZERO);
        let Ok(mut connection) = options.connect().await else { return true };
        let is_busy = connection.execute("BEGIN IMMEDIATE; ROLLBACK").await.is_err();
        connection.close().await.unwrap();
        return is_busy;
    }
    let sql = "SELECT COUNT(*) FROM pg_locks WHERE granted \
        AND relation = CAST('messages' AS regclass) AND mode = 'ShareRowExclusiveLock'";
    let mut connection = PgConnection::connect(&backend.url().await).await.unwrap();
    let locks: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    locks > 0
}

#[apply(on_both!)]
async fn an_import_that_is_killed_can_be_run_again(backend: Backend) {
    let source = Source::large(backend.folder(), 5000).await;
    let kills = scale(3, 30);
    let mut killed = 0;
    TestApp::new(&backend).await.stop().await.unwrap();
    for n in 0..kills {
        let mut child = command(&backend, &source).await.spawn().unwrap();
        while child.try_wait().unwrap().is_none() && !is_written_to(&backend).await {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(30 + 150 * (n % 10))).await;
        let is_in_the_middle = is_written_to(&backend).await;
        child.kill().unwrap();
        let was_killed = child.wait().unwrap().signal().is_some();
        let app = TestApp::new(&backend).await;
        let messages = app.number(MESSAGES).await;
        assert!(messages == 0 || messages == 5000, "{messages}: all or nothing");
        killed += usize::from(is_in_the_middle && was_killed && messages == 0);
        app.stop().await.unwrap();
        if messages > 0 {
            break;
        }
    }
    assert!(killed > 0, "none was killed in the middle");
    let imported = import_beside_copies(&backend, &source).await;
    assert_eq!(imported["messages"]["found"], 5000);
    let app = TestApp::new(&backend).await;
    assert_eq!(app.number(MESSAGES).await, 5000);
    let verified = app.get("/api/v1/admin/audit/verify").key(MASTER).send().await;
    assert_eq!(verified.body["intact"], true, "{}", verified.text);
    measured(&format!("import killed {killed} times before its end, then whole"));
}

/// Imports in a folder with temporary files of killed imports. Returns the rows of the report.
async fn import_beside_copies(backend: &Backend, source: &Source) -> Value {
    fs::remove_dir_all(backend.folder().join("tmp")).unwrap();
    import(backend, source, &[]).await.report["summary"]["rows"].clone()
}

#[apply(on_postgres!)]
async fn a_stopped_import_leaves_no_data(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    // With a write-ahead log, so that the import copies the file.
    source.connect(SqliteJournalMode::Wal).await.close().await.unwrap();
    for name in ["-TERM", "-INT", "-QUIT", "-HUP"] {
        let mut hold = Hold::begin(&backend).await;
        let mut command = command(&backend, &source).await;
        let child = command.args(["--report", "report.json"]).spawn().unwrap();
        hold.wait_for_blocked_import().await;
        let copies = || fs::read_dir(backend.folder().join("tmp")).unwrap().count();
        assert!(copies() > 0 && unfinished(&backend).len() == 1, "{name}: in the middle");
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {output:?}");
        assert!(text(&output.stderr).contains("stopped: either everything"), "{name}: {output:?}");
        assert_eq!((copies(), unfinished(&backend).len()), (0, 0), "{name}");
        assert!(!backend.folder().join("report.json").exists());
        hold.end().await;
    }
    assert_eq!(import(&backend, &source, &[]).await.rows("users"), [3, 3, 0, 0]);
}

#[apply(on_postgres!)]
async fn under_nohup_an_import_outlives_its_terminal(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    let mut hold = Hold::begin(&backend).await;
    let child = through_shell("trap '' HUP", &command(&backend, &source).await).spawn().unwrap();
    hold.wait_for_blocked_import().await;
    signal(&child, "-HUP");
    sleep(Duration::from_millis(300)).await;
    hold.end().await;
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let app = TestApp::new(&backend).await;
    assert_eq!(app.number(USERS).await, 3);
}

#[apply(on_postgres!)]
async fn the_original_cannot_be_written_while_it_is_read(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    let mut hold = Hold::begin(&backend).await;
    let child = command(&backend, &source).await.spawn().unwrap();
    hold.wait_for_blocked_import().await;
    let options = SqliteConnectOptions::new().filename(&source.path);
    let mut writer = options.busy_timeout(Duration::from_millis(100)).connect().await.unwrap();
    let rename = "UPDATE users SET full_name = 'later' WHERE id = 1";
    let refused = writer.execute(rename).await.unwrap_err().to_string();
    assert!(refused.contains("locked"), "{refused}");
    hold.end().await;
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    writer.execute(rename).await.unwrap();
    writer.close().await.unwrap();
}

#[apply(on_postgres!)]
async fn a_report_without_disk_space_stops_the_import(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    let mut command = command(&backend, &source).await;
    command.args(["--report", "report.json"]);
    // Even an empty report is larger than one block.
    let full = through_shell("trap '' XFSZ; ulimit -f 1", &command).output().unwrap();
    assert_eq!(full.status.code(), Some(1), "{full:?}");
    assert!(text(&full.stderr).contains("cannot write the report"), "{full:?}");
    assert!(full.stdout.is_empty() && unfinished(&backend).is_empty());
    let app = TestApp::new(&backend).await;
    assert_eq!(app.number(USERS).await, 0, "nothing was imported without a report");
    app.stop().await.unwrap();
    assert_eq!(import(&backend, &source, &[]).await.rows("users"), [3, 3, 0, 0]);
}

#[apply(on_postgres!)]
async fn a_report_that_cannot_be_renamed_is_kept_and_its_path_reported(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    let place = backend.folder().join("report.json");
    let mut hold = Hold::begin(&backend).await;
    let mut command = command(&backend, &source).await;
    let child = command.arg("--report").arg(&place).spawn().unwrap();
    hold.wait_for_blocked_import().await;
    fs::create_dir(&place).unwrap();
    hold.end().await;
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let (output_text, failed) = (text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(1));
    assert!(output_text.lines().last().unwrap().contains("rows imported"), "{output_text}");
    assert!(failed.contains("everything was imported, but the report cannot"), "{failed}");
    let kept = unfinished(&backend);
    assert!(kept.len() == 1 && failed.contains(kept[0].to_str().unwrap()), "{failed}");
    let report: Value = serde_json::from_slice(&fs::read(&kept[0]).unwrap()).unwrap();
    assert_eq!(report["summary"]["rows"]["users"]["imported"], 3);
    let app = TestApp::new(&backend).await;
    assert_eq!(app.number(USERS).await, 3);
    app.stop().await.unwrap();
    // If the path is a folder from the start, the import does not begin.
    let output = run(&backend, &source, &["--report", place.to_str().unwrap()]).await;
    assert!(text(&output.stderr).contains("a directory exists there"), "{output:?}");
}

#[apply(on_sqlite!)]
async fn a_log_is_beside_the_file_and_not_beside_a_link_to_it(backend: Backend) {
    let elsewhere = backend.folder().join("elsewhere");
    let crashed = backend.folder().join("crashed");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::create_dir_all(&crashed).unwrap();
    let source = Source::full(&elsewhere).await;
    let mut connection = source.connect(SqliteJournalMode::Wal).await;
    let message = "INSERT INTO messages VALUES (90, 5, 1, 'user', 'in the log', \
        '2025-02-03 00:00:00.000000')";
    connection.execute(message).await.unwrap();
    // The state after a crash.
    for suffix in ["", "-wal"] {
        let name = format!("chat_conversations.db{suffix}");
        fs::copy(elsewhere.join(&name), crashed.join(&name)).unwrap();
    }
    connection.close().await.unwrap();
    let link = Source { path: backend.folder().join("link.db") };
    symlink(crashed.join("chat_conversations.db"), &link.path).unwrap();
    let imported = import(&backend, &link, &[]).await;
    assert_eq!(imported.rows("messages"), [5, 5, 0, 0], "with what is in the log only");
    let summary = &imported.report["summary"];
    assert_eq!(
        (&summary["source_copied"], summary["source"].as_str()),
        (&true.into(), link.path.to_str())
    );
}

#[apply(on_sqlite!)]
async fn a_report_never_has_the_path_of_a_database(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    fs::create_dir_all(backend.folder().join("sub")).unwrap();
    symlink(backend.folder(), backend.folder().join("linked")).unwrap();
    let before = fs::read_dir(backend.folder()).unwrap().count();
    for name in [
        "octopus.db",
        "octopus.db-wal",
        "octopus.db-shm",
        "octopus.db-journal",
        "octopus.db.lock",
        "octopus.db.audit-key",
        "chat_conversations.db-wal",
        "sub/../octopus.db",
        "linked/octopus.db",
    ] {
        let path = backend.folder().join(name);
        let output = run(&backend, &source, &["--report", path.to_str().unwrap()]).await;
        let output_text = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(
            output_text.contains("cannot write the report") && output.stdout.is_empty(),
            "{output_text}"
        );
        let after = fs::read_dir(backend.folder()).unwrap().count();
        assert_eq!(after, before + 1, "{name}: nothing was begun but the folder of the test's own");
    }
    import(&backend, &source, &[]).await;
}
