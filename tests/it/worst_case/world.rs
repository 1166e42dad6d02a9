//! A server with much in it, and who calls it.

use crate::support::process::Server;
use crate::support::{Backend, Call, scale};
use octopus::core::text::folded;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;

/// The server's first key.
const MASTER: &str = "a-key-of-the-worst-requests-0123456789abcdef";
const PASSWORD: &str = "correct horse battery";
/// Users whose names have a hundred characters, each of which has three in another case.
pub const NAMED: usize = 1000;
/// The character whose folding costs most.
const LONGEST_FOLD: &str = "\u{390}";

/// Characters of the longest message.
const MESSAGE: usize = 100_000;

pub struct Inner {
    pub server: Server,
    client: Client,
    base: String,
    pub names: Vec<String>,
    /// A conversation of every user, with as many bytes of messages as one batch has.
    pub talk: i64,
    /// Others, to be written to and to be deleted.
    pub written: i64,
    pub doomed: i64,
    /// The first message of `talk`.
    pub message: i64,
    /// A user to be read, changed and deleted, who takes part in nothing.
    pub user: i64,
    /// A key to be read and changed, and others to be ended.
    pub keys: [i64; 4],
    /// The account that sends the requests, by several sessions: some of them end.
    pub session: String,
    pub ending: [String; 3],
    pub session_id: i64,
    pub reset_token: String,
    /// The longest batch of messages.
    pub batch: String,
    /// The longest line that an import takes.
    pub import: String,
    /// The account of somebody else, and their own conversation.
    other: (String, i64),
}

/// Clones are the same one.
#[derive(Clone)]
pub struct World(Arc<Inner>);

impl std::ops::Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A client that has a key.
struct Setup {
    client: Client,
    base: String,
}

impl Setup {
    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.base));
        let answer = Call::new(request).key(MASTER).json(body).send().await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.text);
        answer.body
    }

    async fn register(&self, name: &str) -> i64 {
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "username": name, "password": PASSWORD});
        self.post("/api/v1/users", body).await["id"].as_i64().unwrap()
    }

    async fn login(&self, name: &str) -> String {
        let body = json!({"username": name, "password": PASSWORD});
        let body =
            Call::new(self.client.post(format!("{}/api/v1/users/login", self.base))).json(body);
        body.send().await.expect(200)["access_token"].as_str().unwrap().to_owned()
    }

    async fn key(&self, name: &str) -> i64 {
        let body = json!({"name": name, "scopes": "read"});
        self.post("/api/v1/api-keys", body).await["id"].as_i64().unwrap()
    }

    async fn talk(&self, participant_ids: &[i64]) -> i64 {
        let body = json!({"participant_ids": participant_ids});
        self.post("/api/v1/conversations", body).await["id"].as_i64().unwrap()
    }
}

impl World {
    pub async fn new(backend: &Backend) -> Self {
        let variables = [
            ("MASTER_API_KEY", MASTER),
            ("RATE_LIMIT_ENABLED", "false"),
            // What an unoptimised program needs for the largest bodies.
            ("REQUEST_TIMEOUT_SECONDS", "120"),
        ];
        let server = Server::start(backend, &variables).await;
        let (client, base) = (Client::builder().no_proxy().build().unwrap(), server.url(""));
        let setup = Setup { client, base };
        let user = setup.register("worst").await;
        let other = setup.register("other").await;
        let names = name_users(backend).await;
        let all: Vec<i64> = (1..=i64::try_from(NAMED).unwrap()).map(|n| 1000 + n).collect();
        let talk = setup.talk(&[&[user], &all[..NAMED - 1]].concat()).await;
        let batch = batch();
        let messages = format!("/api/v1/conversations/{talk}/messages");
        let sent: Value = serde_json::from_str(&batch).unwrap();
        let stored = setup.post(&format!("{messages}/batch"), sent).await;
        let doomed = setup.talk(&[]).await;
        setup.post(&format!("/api/v1/conversations/{doomed}/messages/batch"), thousand()).await;
        let mut ending = vec![];
        for _ in 0..3 {
            ending.push(setup.login("worst").await);
        }
        let session = setup.login("worst").await;
        let sessions = setup.client.get(format!("{}/api/v1/users/me/sessions", setup.base));
        let sessions = Call::new(sessions).session(&ending[0]).send().await.expect(200);
        let is_current = |session: &&Value| session["current"] == true;
        let current = sessions.as_array().unwrap().iter().find(is_current).unwrap();
        let resetting = setup.register("resetting").await;
        let reset = format!("/api/v1/users/{resetting}/password-reset");
        let token = setup.post(&reset, json!({})).await["token"].as_str().unwrap().to_owned();
        let mut keys = vec![];
        for n in 0..4 {
            keys.push(setup.key(&format!("key {n}")).await);
        }
        let inner = Inner {
            names,
            talk,
            written: setup.talk(&[user]).await,
            doomed,
            message: stored[0]["id"].as_i64().unwrap(),
            user: 2001,
            keys: keys.try_into().unwrap(),
            session_id: current["id"].as_i64().unwrap(),
            session,
            ending: ending.try_into().unwrap(),
            reset_token: token,
            batch,
            import: import(),
            other: (setup.login("other").await, setup.talk(&[other]).await),
            server,
            client: setup.client,
            base: setup.base,
        };
        Self(Arc::new(inner))
    }

    /// Without a credential. Every answer may be compressed.
    pub fn stranger(&self, method: &str, path: &str) -> Call {
        let method: Method = method.parse().unwrap();
        let request = self.client.request(method, format!("{}{path}", self.base));
        Call::new(request).header("Accept-Encoding", "br, gzip")
    }

    /// By the first key.
    pub fn key(&self, method: &str, path: &str) -> Call {
        self.stranger(method, path).key(MASTER)
    }

    /// By the account.
    pub fn user(&self, method: &str, path: &str) -> Call {
        self.stranger(method, path).session(&self.session)
    }

    /// A short message of somebody else in their own conversation.
    pub fn other_writes(&self) -> Call {
        let (session, talk) = &self.other;
        let path = format!("/api/v1/conversations/{talk}/messages");
        let body = json!({"role": "user", "content": "hello"});
        self.stranger("POST", &path).session(session).json(body)
    }
}

/// Users with the longest names, put into the database: registering them would hash a thousand
/// passwords. Their ids begin at 1001; the names of all but the last, who is renamed and deleted.
async fn name_users(backend: &Backend) -> Vec<String> {
    let mut names: Vec<String> =
        (0..=NAMED).map(|n| format!("{}{n:04}", LONGEST_FOLD.repeat(96))).collect();
    let mut sql = String::from(
        "INSERT INTO users (id, email, email_key, username, username_key, full_name, password_hash, \
         created_at, updated_at) VALUES ",
    );
    for (n, name) in names.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        let (id, key, full_name) = (1001 + n, folded(name), LONGEST_FOLD.repeat(255));
        let email = format!("{}{n:04}@example.com", "e".repeat(60));
        let time = "2026-01-01T00:00:00.000000Z";
        write!(
            sql,
            "{comma}({id}, '{email}', '{email}', '{name}', '{key}', '{full_name}', 'none', '{time}', '{time}')"
        )
        .unwrap();
    }
    backend.execute(sql).await;
    names.truncate(NAMED);
    names
}

/// Messages of the longest kind, as many as a batch has room for.
fn batch() -> String {
    let room: usize = scale(2, 16) * 1024 * 1024;
    // Searches for many times the same letter and another one go through all of it.
    let message = format!(r#"{{"role":"user","content":"{}"}}"#, "a".repeat(MESSAGE));
    let count = (room - 100) / (message.len() + 1);
    format!(r#"{{"messages":[{}]}}"#, vec![message; count].join(","))
}

/// As many messages as a batch may have.
fn thousand() -> Value {
    let message = json!({"role": "user", "content": "x".repeat(1000)});
    json!({"messages": vec![message; 1000]})
}

/// A conversation whose line is full of people, and with messages in lines of a mebibyte.
fn import() -> String {
    let person = format!(r#"{{"username":"{}"}}"#, LONGEST_FOLD.repeat(100));
    let people = vec![person; (1024 * 1024 - 1000) / 216].join(",");
    let time = "2026-01-01T00:00:00Z";
    let mut lines = format!(
        "{{\"type\":\"conversation\",\"external_id\":\"worst\",\"created_at\":\"{time}\",\"participants\":[{people}]}}\n"
    );
    let content = "\u{1f600}".repeat(249_000);
    for _ in 0..scale(2, 16) {
        let message =
            json!({"type": "message", "role": "user", "content": content, "created_at": time});
        writeln!(lines, "{message}").unwrap();
    }
    lines
}
