//! API keys managed by the command line, directly on the database.

use crate::support::{AUDIT_KEY, Backend, TestApp};
use octopus::audit::Audit;
use serde_json::{Value, json};
use std::process::Output;
use std::time::{Duration, Instant};
use tokio::process::Command;

const KEYS: &str = "/api/v1/api-keys";

/// Runs `octopus` with these arguments on the database of `backend`.
async fn octopus(backend: &Backend, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octopus"));
    command.args(arguments).env_clear().current_dir(backend.folder());
    command.env("DATABASE_URL", backend.url().await);
    if !backend.is_sqlite() {
        command.env("AUDIT_KEY", AUDIT_KEY);
    }
    command.output().await.unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The error output of a command that was refused.
#[track_caller]
fn stderr(output: &Output) -> String {
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn parsed(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

#[apply(on_both!)]
async fn the_host_creates_an_admin_key_when_the_last_one_is_lost(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.admin().await; // its secret is lost
    let created =
        octopus(&backend, &["keys", "create", "--name", "rescue", "--scopes", "admin"]).await;
    let key = stdout(&created);
    // Only the secret is on stdout, for `KEY=$(octopus keys create …)`.
    assert!(key.starts_with("octopus_") && key.len() == 58 && key.ends_with('\n'), "{key}");
    assert!(String::from_utf8_lossy(&created.stderr).contains("never shown again"));
    app.get(KEYS).key(key.trim()).send().await.expect(200);

    let arguments = [
        "keys",
        "create",
        "--json",
        "--name",
        "all",
        "--description",
        "d",
        "--scopes",
        "users:write,read",
        "--expires-at",
        "2099-01-01T00:00:00Z",
        "--allowed-ips",
        "192.0.2.1, 10.0.0.0/8",
        "--rate-limit-per-minute",
        "7",
    ];
    let created = parsed(&octopus(&backend, &arguments).await);
    let shown =
        app.get(&format!("{KEYS}/{}", created["id"])).key(key.trim()).send().await.expect(200);
    for (name, value) in [
        ("name", json!("all")),
        ("description", json!("d")),
        ("scopes", json!("read,users:write")),
        ("expires_at", json!("2099-01-01T00:00:00.000000Z")),
        ("allowed_ips", json!("192.0.2.1,10.0.0.0/8")),
        ("rate_limit_per_minute", json!(7)),
    ] {
        assert_eq!((&shown[name], &created[name]), (&value, &value), "{name}");
    }
}

#[apply(on_both!)]
async fn the_host_lists_rotates_and_deactivates_keys(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let id = id.to_string();
    let rotated =
        octopus(&backend, &["keys", "rotate", &id, "--grace-period-seconds", "60", "--json"]).await;
    let rotated = parsed(&rotated);
    assert_eq!(rotated["rotated_from_id"].to_string(), id);
    let new_id = rotated["id"].to_string();
    let printed = stdout(&octopus(&backend, &["keys", "deactivate", &new_id]).await);
    assert!(printed.contains(&new_id) && printed.contains("is deactivated"), "{printed}");
    let off = parsed(&octopus(&backend, &["keys", "deactivate", &new_id, "--json"]).await);
    assert_eq!(off["is_active"], false, "deactivation is idempotent");

    let listed = parsed(&octopus(&backend, &["keys", "list", "--json"]).await);
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|key| key["id"].to_string()).collect();
    assert_eq!(ids, ["1".to_owned(), id.clone()]);
    assert!(!listed.to_string().contains("octopus_"), "no secrets");
    let table = stdout(&octopus(&backend, &["keys", "list", "--include-inactive"]).await);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 4 && lines[0].trim_start().starts_with("ID"), "{table}");
    assert!(
        lines[1].contains("Master API Key") && lines[1].contains("admin,read,write"),
        "{table}"
    );
    assert!(lines.iter().all(|line| line.len() == line.trim_end().len()), "{table:?}");
    let found = parsed(&octopus(&backend, &["keys", "list", "--q", "MASTER", "--json"]).await);
    assert_eq!(found.as_array().unwrap().len(), 1);
}

#[apply(on_both!)]
async fn changes_by_the_host_are_audited_and_apply_to_a_running_server(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for _ in 0..3 {
        let (key, id) = app.key(&admin, "read").await;
        app.get("/api/v1/users").key(&key).send().await.expect(200);
        stdout(&octopus(&backend, &["keys", "deactivate", &id.to_string()]).await);
        let done = Instant::now();
        while app.get("/api/v1/users").key(&key).send().await.status == 200 {
            // Well before the cache entry would expire, with some time for a busy machine.
            assert!(done.elapsed() < Duration::from_secs(3), "the server still accepts it");
        }
        let path = format!("{KEYS}/audit-logs?api_key_id={id}&limit=1");
        let logs = app.get(&path).key(&admin).send().await.expect(200);
        let log = &logs[0];
        assert_eq!(log["action"], "deactivate");
        assert_eq!(log["performed_by"], "host");
        assert_eq!(log["api_key_name"], "a key to read");
        for none in
            ["performed_by_key_id", "performed_by_key_name", "performed_by_ip", "request_id"]
        {
            assert_eq!(log[none], json!(null), "{none}");
        }
    }
    let audit: &Audit = &app.state.audit;
    let found = audit.verify(&app.state.db, None).await.unwrap();
    assert!(found.intact, "server and host make one chain: {found:?}");
}

#[apply(on_both!)]
async fn the_host_follows_the_rules_and_errors_name_the_option(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.admin().await;
    for (arguments, words) in [
        (&["keys", "deactivate", "1"][..], &["last active admin key"][..]),
        (&["keys", "rotate", "999"], &["API key not found"]),
        (&["keys", "deactivate", "x"], &["invalid value 'x'", "<ID>"]),
        (&["keys", "create"], &["--name"]),
        (
            &["keys", "create", "--name", "", "--scopes", "root", "--allowed-ips", "10.0.0.1/8"],
            &["--name:", "--scopes: unknown scope 'root'", "--allowed-ips:", "10.0.0.0/8"],
        ),
        (&["keys", "create", "--name", "n", "--expires-at", "soon"], &["--expires-at:"]),
        (
            &["keys", "create", "--name", "n", "--rate-limit-per-minute", "0"],
            &["--rate-limit-per-minute:"],
        ),
        (
            &["keys", "rotate", "1", "--grace-period-seconds", "604801"],
            &["--grace-period-seconds:"],
        ),
        (&["keys", "list", "--unused-for-days", "0"], &["--unused-for-days"]),
    ] {
        let error = stderr(&octopus(&backend, arguments).await);
        for word in words {
            assert!(error.contains(word), "{arguments:?}: {error}");
        }
    }
    let rows = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys WHERE is_active = TRUE";
    assert_eq!(app.number(rows).await, 1);
}

#[apply(on_both!)]
async fn the_host_with_another_audit_key_changes_nothing(backend: Backend) {
    // The service's unit sets the variable and the operator's shell does not.
    let app =
        TestApp::with(&backend, &[("AUDIT_KEY", "the key that the service's unit sets")]).await;
    app.admin().await;
    let refused = octopus(&backend, &["keys", "create", "--name", "n"]).await;
    let error = stderr(&refused);
    assert!(error.contains("AUDIT_KEY") || error.contains("audit key"), "{error}");
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 1);
    assert!(
        !backend.folder().join("octopus.db.audit-key").exists(),
        "no second audit key was created"
    );
    let found = app.state.audit.verify(&app.state.db, None).await.unwrap();
    assert!(found.intact, "{found:?}");
}

#[apply(on_both!)]
async fn the_host_creates_no_database_by_mistake(backend: Backend) {
    backend.start_empty();
    for arguments in [&["keys", "list"][..], &["keys", "create", "--name", "n"]] {
        let error = stderr(&octopus(&backend, arguments).await);
        assert!(error.contains("octopus.db") || error.contains("empty"), "{error}");
    }
    assert_eq!(std::fs::read_dir(backend.folder()).unwrap().count(), 0, "no file was created");
    backend.open().await.close().await; // a database can be created here
}

#[apply(on_both!)]
async fn control_characters_are_not_printed(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = json!({"name": "red \u{1b}[31m and \u{7} loud"});
    app.post(KEYS, body).key(&admin).send().await.expect(201);
    let table = stdout(&octopus(&backend, &["keys", "list"]).await);
    assert!(table.contains("red") && !table.contains(['\u{1b}', '\u{7}']), "{table:?}");
}
