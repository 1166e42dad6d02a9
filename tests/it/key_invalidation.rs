//! Key changes made by other processes: every server applies them within 100 milliseconds.

use crate::support::{AUDIT_KEY, Backend, TestApp};
use octopus::audit::Origin;
use octopus::features::api_keys::service;
use octopus::state::AppState;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};
use sqlx_postgres::PgConnection;
use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

const USERS: &str = "/api/v1/users";
/// The time within which every process must apply a change.
const MAX_DELAY: Duration = Duration::from_millis(100);
const KILL_LISTENERS: &str = "SELECT CAST(COUNT(pg_terminate_backend(pid)) AS BIGINT) \
    FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%octopus_keys%'";

/// The longest time after a change in which a request was still accepted.
#[derive(Default)]
struct MaxDelay(Duration);

impl MaxDelay {
    /// Sends requests to `app` until it refuses `key`, which was changed at `done`.
    async fn wait(&mut self, app: &TestApp, key: &str, done: Instant) {
        loop {
            let asked = Instant::now();
            if !app.is_valid(key).await {
                break;
            }
            // A request sent before the change may be accepted.
            self.0 = self.0.max(asked.saturating_duration_since(done));
            assert!(done.elapsed() < Duration::from_secs(15), "the change is never noticed");
            sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..3 {
            assert!(!app.is_valid(key).await, "accepted again");
        }
    }

    #[track_caller]
    fn check(&self, what: &str) {
        println!("{what}: accepted for {:?} at most", self.0);
        assert!(self.0 < MAX_DELAY, "{what}: accepted for {:?}", self.0);
    }
}

async fn revoke(app: &AppState, id: i64) -> Instant {
    service::deactivate(app, &Origin::HOST, id).await.unwrap();
    Instant::now()
}

/// The binary, configured with the database of `backend`.
async fn octopus(backend: &Backend) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octopus"));
    command.env_clear().current_dir(backend.folder());
    command.env("DATABASE_URL", backend.url().await).env("RATE_LIMIT_ENABLED", "false");
    if !backend.is_sqlite() {
        command.env("AUDIT_KEY", AUDIT_KEY);
    }
    command
}

#[apply(on_both!)]
async fn a_key_revoked_by_the_command_line_is_refused_immediately(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let keys = app.many_keys(12).await;
    let mut max_delay = MaxDelay::default();
    for (key, id) in keys {
        app.wait_until_cached(&key).await;
        let mut command = octopus(&backend).await;
        command.args(["keys", "deactivate", &id.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = tokio::task::spawn_blocking(move || command.status()).await.unwrap();
        let done = Instant::now();
        assert!(status.unwrap().success());
        max_delay.wait(&app, &key, done).await;
    }
    max_delay.check("the command line");
}

#[apply(on_both!)]
async fn changes_made_directly_in_the_database_apply_immediately(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let keys = app.many_keys(60).await;
    let mut max_delay = MaxDelay::default();
    for (n, (key, id)) in keys.iter().enumerate() {
        let statement = match n % 6 {
            0 => format!("UPDATE api_keys SET is_active = FALSE WHERE id = {id}"),
            1 => format!("DELETE FROM api_keys WHERE id = {id}"),
            2 => format!("UPDATE api_keys SET expires_at = '2001-01-01T00:00:00Z' WHERE id = {id}"),
            3 => format!("UPDATE api_keys SET allowed_ips = '' WHERE id = {id}"),
            4 => format!("UPDATE api_keys SET scopes = 'nothing' WHERE id = {id}"),
            // Replaces the secret.
            _ => {
                let hash = format!("{n:064x}");
                let bytes = if backend.is_sqlite() {
                    format!("x'{hash}'")
                } else {
                    format!("decode('{hash}', 'hex')")
                };
                format!("UPDATE api_keys SET key_hash = {bytes} WHERE id = {id}")
            }
        };
        app.wait_until_cached(key).await;
        by_hand(&backend, statement).await;
        max_delay.wait(&app, key, Instant::now()).await;
    }
    max_delay.check("by hand");
}

#[apply(on_both!)]
async fn every_field_returned_to_a_key_holder_is_updated_when_it_changes(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let user = app.user("alice").await;
    let keys = app.many_keys(3).await;
    let [(key, id), (_, other), (_, another)] = &*keys else { panic!("{keys:?}") };
    let changes = [
        ("name", "'by hand'".to_owned(), json!("by hand")),
        ("description", "'what it is for'".to_owned(), json!("what it is for")),
        ("scopes", "'read,write'".to_owned(), json!("read,write")),
        ("allowed_ips", "'127.0.0.1,::1'".to_owned(), json!("127.0.0.1,::1")),
        ("rate_limit_per_minute", "777".to_owned(), json!(777)),
        ("created_by_user_id", user.to_string(), json!(user)),
        ("rotated_from_id", other.to_string(), json!(other)),
        ("rotated_to_id", another.to_string(), json!(another)),
        ("expires_at", "'2099-01-01T00:00:00Z'".to_owned(), json!("2099-01-01T00:00:00.000000Z")),
        (
            "grace_expires_at",
            "'2098-01-01T00:00:00Z'".to_owned(),
            json!("2098-01-01T00:00:00.000000Z"),
        ),
    ];
    for (column, sql, shown) in changes {
        app.wait_until_cached(key).await;
        by_hand(&backend, format!("UPDATE api_keys SET {column} = {sql} WHERE id = {id}")).await;
        let done = Instant::now();
        while app.get("/api/v1/api-keys/me").key(key).send().await.expect(200)[column] != shown {
            // Well before the cache entry would expire.
            assert!(
                done.elapsed() < Duration::from_secs(3),
                "{column} is returned with its old value"
            );
        }
    }
}

/// Runs `sql` directly on the database, bypassing the servers.
async fn by_hand(backend: &Backend, sql: String) {
    let (url, sql) = (backend.url().await, AssertSqlSafe(sql));
    if backend.is_sqlite() {
        let file = url.trim_start_matches("sqlite:///");
        let mut by_hand = SqliteConnection::connect(&format!("sqlite://{file}")).await.unwrap();
        by_hand.execute(sql).await.unwrap();
    } else {
        PgConnection::connect(&url).await.unwrap().execute(sql).await.unwrap();
    }
}

/// Three servers on one database that share no state in memory.
async fn three_servers(backend: &Backend) -> [TestApp; 3] {
    [TestApp::new(backend).await, TestApp::new(backend).await, TestApp::new(backend).await]
}

#[apply(on_postgres!)]
async fn a_key_revoked_by_one_server_is_refused_by_the_others(backend: Backend) {
    let servers = three_servers(&backend).await;
    let mut max_delay = MaxDelay::default();
    for (n, (key, id)) in servers[0].many_keys(60).await.into_iter().enumerate() {
        for server in &servers {
            server.wait_until_cached(&key).await;
        }
        let done = revoke(&servers[n % 3].state, id).await;
        assert!(
            !servers[n % 3].is_valid(&key).await,
            "the revoking server refuses the key immediately"
        );
        for server in &servers {
            max_delay.wait(server, &key, done).await;
        }
        for server in &servers {
            server.get(USERS).key(&key).send().await.expect(401);
        }
    }
    max_delay.check("three servers");
}

#[apply(on_postgres!)]
async fn no_revoked_key_is_accepted_after_a_lost_listener(backend: Backend) {
    let servers = three_servers(&backend).await;
    let (mut max_delay, mut after_reconnect) = (MaxDelay::default(), MaxDelay::default());
    let keys = servers[0].many_keys(60).await;
    for (n, keys) in keys.chunks(2).enumerate() {
        for server in &servers {
            for (key, _) in keys {
                server.wait_until_cached(key).await;
            }
        }
        let killed = servers[0].number(KILL_LISTENERS).await;
        assert_eq!(killed, 3);
        // Immediately, and at several moments during the reconnection.
        sleep(Duration::from_millis(u64::try_from(n / 3 * 40).unwrap())).await;
        let done = revoke(&servers[0].state, keys[0].1).await;
        for server in &servers {
            max_delay.wait(server, &keys[0].0, done).await;
        }
        for server in &servers {
            server.wait_until_cached(&keys[1].0).await;
        }
        let done = revoke(&servers[1].state, keys[1].1).await;
        for server in &servers {
            after_reconnect.wait(server, &keys[1].0, done).await;
        }
    }
    max_delay.check("after the listener was lost");
    after_reconnect.check("after the listener reconnected");
}

#[apply(on_postgres!)]
async fn cached_keys_are_not_trusted_while_the_listener_cannot_reconnect(backend: Backend) {
    let [one, other, _] = three_servers(&backend).await;
    let keys = one.many_keys(3).await;
    let mut max_delay = MaxDelay::default();
    for (key, id) in keys {
        other.wait_until_cached(&key).await;
        // All connections are in use and other requests wait for the next one, so the listener gets
        // none to reconnect.
        let mut requests = JoinSet::new();
        for _ in 0..20 {
            let db = other.state.db.clone();
            requests.spawn(async move {
                let taken = db.begin().await.unwrap();
                sleep(Duration::from_millis(1500)).await;
                drop(taken);
            });
        }
        sleep(Duration::from_millis(300)).await;
        assert!(one.number(KILL_LISTENERS).await >= 2);
        let done = revoke(&one.state, id).await;
        // A request waits for a connection, or its key is read from the database.
        max_delay.wait(&other, &key, done).await;
        requests.join_all().await;
    }
    max_delay.check("without a listener");
}

/// A server started as an operator does; it is stopped with the test.
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    async fn start(backend: &Backend, n: usize) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = octopus(backend).await;
        let log = File::create(backend.folder().join(format!("log{n}"))).unwrap();
        let child = command.env("PORT", port.to_string()).stderr(log).spawn().unwrap();
        let process = Self { child, port };
        for _ in 0..400 {
            if process.status("/ready", None).await == Some(200) {
                return process;
            }
            sleep(Duration::from_millis(25)).await;
        }
        panic!("server {n} is not ready");
    }

    async fn status(&self, path: &str, key: Option<&str>) -> Option<u16> {
        let mut call = reqwest::Client::new().get(format!("http://127.0.0.1:{}{path}", self.port));
        if let Some(key) = key {
            call = call.header("Octopus-API-Key", key);
        }
        Some(call.send().await.ok()?.status().as_u16())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[apply(on_postgres!)]
async fn a_key_revoked_by_one_process_is_refused_by_the_others(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let processes = [
        Process::start(&backend, 0).await,
        Process::start(&backend, 1).await,
        Process::start(&backend, 2).await,
    ];
    let client = reqwest::Client::new();
    let mut max_delay = Duration::ZERO;
    for (n, (key, id)) in app.many_keys(50).await.into_iter().enumerate() {
        for process in &processes {
            for _ in 0..3 {
                assert_eq!(process.status(USERS, Some(&key)).await, Some(200));
            }
        }
        let port = processes[n % 3].port;
        let path = format!("http://127.0.0.1:{port}/api/v1/api-keys/{id}/deactivate");
        let answer = client.post(path).header("Octopus-API-Key", &admin).send().await.unwrap();
        let done = Instant::now();
        assert_eq!(answer.status(), 200);
        assert_eq!(processes[n % 3].status(USERS, Some(&key)).await, Some(401));
        for process in &processes {
            loop {
                let asked = Instant::now();
                if process.status(USERS, Some(&key)).await == Some(401) {
                    break;
                }
                max_delay = max_delay.max(asked - done);
                assert!(done.elapsed() < Duration::from_secs(15), "the change is never noticed");
            }
        }
        // In half of the rounds, right after the listeners were lost.
        if n >= 25 {
            assert!(app.number(KILL_LISTENERS).await >= 1);
        }
    }
    MaxDelay(max_delay).check("three processes");
}
