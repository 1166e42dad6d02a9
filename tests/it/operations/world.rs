//! A server with much data, and its callers.

use crate::support::operations::Callers;
use crate::support::{Backend, Call, scale};
use octopus::core::text::folded;
use serde_json::{Value, json};
use std::fmt::Write;
use std::ops::Deref;
use std::sync::Arc;

/// Users with names of a hundred characters, each of which folds to three characters.
pub const NAMED: usize = 1000;
/// The character with the most expensive case folding.
const LONGEST_FOLD: &str = "\u{390}";

/// Length of the longest message, in characters.
const MESSAGE: usize = 100_000;

pub struct Inner {
    callers: Callers,
    pub names: Vec<String>,
    /// A conversation of all users, with as many bytes of messages as a batch can have.
    pub conversation: i64,
    /// Conversations to write to and to delete.
    pub written: i64,
    pub doomed: i64,
    /// The first message of `conversation`.
    pub message: i64,
    /// A user to read, change and delete, who participates in no conversation.
    pub user: i64,
    /// A key to read and change, and others to end.
    pub keys: [i64; 4],
    /// Sessions of the signed-in user that end.
    pub ending: [String; 3],
    pub session_id: i64,
    pub reset_token: String,
    /// The longest batch of messages.
    pub batch: String,
    /// An import with the longest lines.
    pub import: String,
    /// A session of another user, and a conversation of theirs.
    other: (String, i64),
}

/// Clones share one server.
#[derive(Clone)]
pub struct World(Arc<Inner>);

impl Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Deref for Inner {
    type Target = Callers;

    fn deref(&self) -> &Callers {
        &self.callers
    }
}

impl AsRef<Callers> for World {
    fn as_ref(&self) -> &Callers {
        &self.callers
    }
}

async fn id_of_key(callers: &Callers, name: &str) -> i64 {
    let body = json!({"name": name, "scopes": "read"});
    callers.post("/api/v1/api-keys", body).await["id"].as_i64().unwrap()
}

async fn id_of_conversation(callers: &Callers, participant_ids: &[i64]) -> i64 {
    let body = json!({"participant_ids": participant_ids});
    callers.post("/api/v1/conversations", body).await["id"].as_i64().unwrap()
}

impl World {
    pub async fn new(backend: &Backend) -> Self {
        let callers = Callers::new(backend).await;
        let user = callers.signed_in;
        let other = callers.register("other").await;
        let names = name_users(backend).await;
        let all: Vec<i64> = (1..=i64::try_from(NAMED).unwrap()).map(|n| 1000 + n).collect();
        let participants = [&[user], &all[..NAMED - 1]].concat();
        let conversation = id_of_conversation(&callers, &participants).await;
        let batch = batch();
        let messages = format!("/api/v1/conversations/{conversation}/messages");
        let sent: Value = serde_json::from_str(&batch).unwrap();
        let stored = callers.post(&format!("{messages}/batch"), sent).await;
        let doomed = id_of_conversation(&callers, &[]).await;
        callers.post(&format!("/api/v1/conversations/{doomed}/messages/batch"), thousand()).await;
        let mut ending = vec![];
        for _ in 0..3 {
            ending.push(callers.login("worst").await);
        }
        let sessions = callers.request("GET", "/api/v1/users/me/sessions").session(&ending[0]);
        let sessions = sessions.send().await.expect(200);
        let is_current = |session: &&Value| session["current"] == true;
        let current = sessions.as_array().unwrap().iter().find(is_current).unwrap();
        let resetting = callers.register("resetting").await;
        let reset = format!("/api/v1/users/{resetting}/password-reset");
        let token = callers.post(&reset, json!({})).await["token"].as_str().unwrap().to_owned();
        let mut keys = vec![];
        for n in 0..4 {
            keys.push(id_of_key(&callers, &format!("key {n}")).await);
        }
        let inner = Inner {
            names,
            conversation,
            written: id_of_conversation(&callers, &[user]).await,
            doomed,
            message: stored[0]["id"].as_i64().unwrap(),
            user: 2001,
            keys: keys.try_into().unwrap(),
            session_id: current["id"].as_i64().unwrap(),
            ending: ending.try_into().unwrap(),
            reset_token: token,
            batch,
            import: import(),
            other: (callers.login("other").await, id_of_conversation(&callers, &[other]).await),
            callers,
        };
        Self(Arc::new(inner))
    }

    /// A short message of the other user in their conversation.
    pub fn other_writes(&self) -> Call {
        let (session, conversation) = &self.other;
        let path = format!("/api/v1/conversations/{conversation}/messages");
        let body = json!({"role": "user", "content": "hello"});
        self.anonymous("POST", &path).session(session).json(body)
    }
}

/// Inserts users with the longest names with SQL, because registering them would hash a thousand
/// passwords. Their ids begin at 1001. Returns all names but the last, whose user is renamed and
/// deleted.
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

/// A batch with the maximum of longest messages.
fn batch() -> String {
    let room: usize = scale(2, 16) * 1024 * 1024;
    // A search for a repeated letter followed by another one scans the whole message.
    let message = format!(r#"{{"role":"user","content":"{}"}}"#, "a".repeat(MESSAGE));
    let count = (room - 100) / (message.len() + 1);
    format!(r#"{{"messages":[{}]}}"#, vec![message; count].join(","))
}

/// A batch with the maximum number of messages.
fn thousand() -> Value {
    let message = json!({"role": "user", "content": "x".repeat(1000)});
    json!({"messages": vec![message; 1000]})
}

/// A conversation with the maximum line of participants, and messages in lines of one MiB.
fn import() -> String {
    let participant = format!(r#"{{"username":"{}"}}"#, LONGEST_FOLD.repeat(100));
    let participants = vec![participant; (1024 * 1024 - 1000) / 216].join(",");
    let time = "2026-01-01T00:00:00Z";
    let mut lines = format!(
        "{{\"type\":\"conversation\",\"external_id\":\"worst\",\"created_at\":\"{time}\",\"participants\":[{participants}]}}\n"
    );
    let content = "\u{1f600}".repeat(249_000);
    for _ in 0..scale(2, 16) {
        let message =
            json!({"type": "message", "role": "user", "content": content, "created_at": time});
        writeln!(lines, "{message}").unwrap();
    }
    lines
}
