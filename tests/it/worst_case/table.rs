//! The most expensive legal request of every operation: the longest fields, the largest page, and the
//! characters that cost most.

use super::world::World;
use crate::support::Call;
use serde_json::{Value, json};

/// An operation.
pub struct Row {
    pub method: &'static str,
    /// As the OpenAPI document has it, or a file.
    pub path: &'static str,
    pub worst: fn(&World) -> Call,
    /// Whether it is refused after all its work, or has nothing to do.
    pub may_fail: bool,
}

/// Sends the largest page of a list.
const PAGE: &str = "?limit=1000";
/// Finds nothing in the messages, after the longest look at each of them.
const SOUGHT: &str = "?limit=100&q=";

const fn row(method: &'static str, path: &'static str, worst: fn(&World) -> Call) -> Row {
    Row { method, path, worst, may_fail: false }
}

/// One that may be refused.
const fn refused(method: &'static str, path: &'static str, worst: fn(&World) -> Call) -> Row {
    Row { method, path, worst, may_fail: true }
}

macro_rules! talks {
    ($rest:literal) => {
        concat!("/api/v1/conversations", $rest)
    };
}
macro_rules! talk {
    ($rest:literal) => {
        concat!("/api/v1/conversations/{conversation_id}", $rest)
    };
}
macro_rules! keys {
    ($rest:literal) => {
        concat!("/api/v1/api-keys", $rest)
    };
}
macro_rules! users {
    ($rest:literal) => {
        concat!("/api/v1/users", $rest)
    };
}

pub const ROWS: &[Row] = &[
    row("get", "/", |w| w.stranger("GET", "/")),
    row("get", "/health", |w| w.stranger("GET", "/health")),
    row("get", "/ready", |w| w.stranger("GET", "/ready")),
    row("get", "/docs/{name}", |w| w.stranger("GET", "/docs/swagger-ui-bundle.js")),
    row("get", "/openapi.json", |w| w.stranger("GET", "/openapi.json")),
    refused("post", "/bootstrap", |w| w.stranger("POST", "/bootstrap")),
    // API keys
    row("post", keys!(""), |w| w.key("POST", keys!("")).json(longest_key())),
    row("get", keys!(""), |w| {
        w.key("GET", &format!("{}{PAGE}&q={}", keys!(""), "%CE%90".repeat(250)))
    }),
    row("get", keys!("/me"), |w| w.key("GET", keys!("/me"))),
    row("post", keys!("/verify"), |w| {
        let body = json!({"key": "k".repeat(1000), "scope": "read", "ip": "2001:db8::1"});
        w.key("POST", keys!("/verify")).json(body)
    }),
    row("get", keys!("/audit-logs"), |w| w.key("GET", &format!("{}{PAGE}", keys!("/audit-logs")))),
    row("get", keys!("/expiring"), |w| {
        w.key("GET", &format!("{}{PAGE}&days=3650", keys!("/expiring")))
    }),
    row("post", keys!("/cleanup-expired"), |w| w.key("POST", keys!("/cleanup-expired"))),
    row("get", keys!("/{api_key_id}"), |w| w.key("GET", &key(w, 0, ""))),
    row("patch", keys!("/{api_key_id}"), |w| w.key("PATCH", &key(w, 0, "")).json(longest_key())),
    row("post", keys!("/{api_key_id}/rotate"), |w| w.key("POST", &key(w, 1, "/rotate"))),
    row("post", keys!("/{api_key_id}/deactivate"), |w| w.key("POST", &key(w, 2, "/deactivate"))),
    row("get", keys!("/{api_key_id}/usage"), |w| {
        w.key("GET", &key(w, 0, "/usage?granularity=hour&since=2000-01-01T00:00:00Z"))
    }),
    row("delete", keys!("/{api_key_id}"), |w| w.key("DELETE", &key(w, 3, ""))),
    // users
    // Taken after the first time, and hashed and estimated all the same.
    refused("post", users!(""), |w| w.stranger("POST", users!("")).json(longest_user())),
    row("post", users!("/login"), |w| {
        let body = json!({"username": "worst", "password": "correct horse battery"});
        w.stranger("POST", users!("/login")).json(body)
    }),
    row("get", users!(""), |w| w.key("GET", &format!("{}{PAGE}", users!("")))),
    row("get", users!("/username/{username}"), |w| {
        w.stranger("GET", &format!("{}/username/{}", users!(""), w.names[0]))
    }),
    row("get", users!("/{user_id}"), |w| w.key("GET", &user(w, ""))),
    row("put", users!("/{user_id}"), |w| w.key("PUT", &user(w, "")).json(another_user())),
    row("post", users!("/{user_id}/password-reset"), |w| {
        w.key("POST", &user(w, "/password-reset"))
    }),
    row("get", users!("/{user_id}/export"), |w| w.key("GET", &user(w, "/export"))),
    row("post", users!("/password-reset"), |w| {
        let body = json!({"token": w.reset_token, "new_password": SLOWEST_PASSWORD});
        w.stranger("POST", users!("/password-reset")).json(body)
    }),
    row("get", users!("/me"), |w| w.user("GET", users!("/me"))),
    row("put", users!("/me"), |w| {
        w.user("PUT", users!("/me")).json(json!({"full_name": "\u{390}".repeat(255)}))
    }),
    row("get", users!("/me/export"), |w| w.user("GET", users!("/me/export"))),
    row("get", users!("/me/sessions"), |w| w.user("GET", users!("/me/sessions"))),
    row("delete", users!("/me/sessions/{session_id}"), |w| {
        w.user("DELETE", &format!("{}/me/sessions/{}", users!(""), w.session_id))
    }),
    row("post", users!("/logout"), |w| w.stranger("POST", users!("/logout")).session(&w.ending[1])),
    // conversations
    row("post", talks!(""), |w| {
        let body = json!({"title": "\u{390}".repeat(255), "participant_usernames": w.names,
            "metadata": metadata()});
        w.user("POST", talks!("")).header("Idempotency-Key", unique()).json(body)
    }),
    row("get", talks!(""), |w| {
        w.user("GET", &format!("{}{PAGE}&message_limit=1000&order=recent", talks!("")))
    }),
    row("get", talks!("/search"), |w| w.user("GET", &search("/search"))),
    row("post", talks!("/import"), |w| {
        let call = w.key("POST", talks!("/import")).header("Content-Type", "application/x-ndjson");
        call.body(w.import.clone())
    }),
    row("get", talks!("/user/{user_id}"), |w| {
        let query = format!("{PAGE}&message_limit=1000");
        w.key("GET", &format!("{}/user/{}{query}", talks!(""), w.user - 3))
    }),
    row("get", talk!(""), |w| w.user("GET", &talk(w, "?message_limit=1000"))),
    row("put", talk!(""), |w| {
        let body = json!({"title": "\u{390}".repeat(255), "metadata": metadata()});
        w.key("PUT", &talk(w, "")).json(body)
    }),
    row("get", talk!("/events"), |w| w.user("GET", &talk(w, "/events"))),
    row("post", talk!("/events/ticket"), |w| w.user("POST", &talk(w, "/events/ticket"))),
    row("get", talk!("/export"), |w| w.user("GET", &talk(w, "/export"))),
    row("get", talk!("/messages"), |w| w.user("GET", &talk(w, &format!("/messages{PAGE}")))),
    row("post", talk!("/messages"), |w| {
        let body = json!({"role": "user", "content": longest_text(), "metadata": metadata()});
        let path = format!("{}/{}/messages", talks!(""), w.written);
        w.user("POST", &path).header("Idempotency-Key", unique()).json(body)
    }),
    row("post", talk!("/messages/batch"), |w| {
        let path = format!("{}/{}/messages/batch", talks!(""), w.written);
        let call = w.user("POST", &path).header("Content-Type", "application/json");
        call.header("Idempotency-Key", unique()).body(w.batch.clone())
    }),
    row("get", talk!("/messages/{message_id}"), |w| w.user("GET", &message(w))),
    row("patch", talk!("/messages/{message_id}"), |w| {
        w.key("PATCH", &message(w)).json(json!({"content": longest_text(), "metadata": metadata()}))
    }),
    row("delete", talk!("/messages/{message_id}"), |w| w.key("DELETE", &message(w))),
    row("get", talk!("/search"), |w| w.user("GET", &search(&format!("/{}/search", w.talk)))),
    row("get", talk!("/participants"), |w| {
        w.user("GET", &talk(w, &format!("/participants{PAGE}")))
    }),
    // First, as the conversation has as many participants as it may.
    row("delete", talk!("/participants/{user_id}"), |w| {
        w.key("DELETE", &talk(w, &format!("/participants/{}", w.user - 2)))
    }),
    row("post", talk!("/participants"), |w| {
        w.user("POST", &talk(w, "/participants")).json(json!({"username": w.names[999]}))
    }),
    row("delete", talk!(""), |w| w.key("DELETE", &format!("{}/{}", talks!(""), w.doomed))),
    // items
    refused("post", "/api/v1/items", |w| {
        let body = json!({"item_id": "i".repeat(64), "name": "\u{390}".repeat(255)});
        w.key("POST", "/api/v1/items").json(body)
    }),
    row("get", "/api/v1/items", |w| w.key("GET", &format!("/api/v1/items{PAGE}"))),
    row("get", "/api/v1/items/{item_id}", |w| w.key("GET", &item())),
    row("put", "/api/v1/items/{item_id}", |w| {
        w.key("PUT", &item()).json(json!({"name": "\u{390}".repeat(255)}))
    }),
    row("delete", "/api/v1/items/{item_id}", |w| w.key("DELETE", &item())),
    // administration
    row("post", "/api/v1/admin", |w| w.key("POST", "/api/v1/admin")),
    row("get", "/api/v1/admin/stats", |w| w.key("GET", "/api/v1/admin/stats")),
    row("get", "/api/v1/audit/export", |w| w.key("GET", "/api/v1/audit/export")),
    row("get", "/api/v1/admin/audit/verify", |w| w.key("GET", "/api/v1/admin/audit/verify")),
    // what ends users and sessions
    row("delete", users!("/{user_id}"), |w| w.key("DELETE", &user(w, ""))),
    row("delete", users!("/me/sessions"), |w| {
        w.user("DELETE", &format!("{}?keep_current=true", users!("/me/sessions")))
    }),
    row("delete", users!("/me"), |w| {
        w.user("DELETE", users!("/me")).json(json!({"current_password": "correct horse battery"}))
    }),
];

/// Of the passwords that were tried, the one whose strength takes longest to estimate: each character
/// may stand for several letters.
const SLOWEST_PASSWORD: &str = "4@8({[<3691!|10$5+7%24@8";

fn longest_key() -> Value {
    let networks: Vec<String> =
        (0..100).map(|n| format!("2001:db8:ffff:ffff:{n:04x}::/80")).collect();
    json!({
        "name": "\u{390}".repeat(255),
        "description": "\u{1f600}".repeat(1000),
        "scopes": vec!["conversations:write"; 40].join(","),
        "allowed_ips": networks.join(", "),
        "expires_at": "2030-01-01T00:00:00Z",
    })
}

fn longest_user() -> Value {
    let host = vec!["d".repeat(60); 3].join(".");
    json!({
        "email": format!("{}@{host}.com", "e".repeat(60)),
        "username": "\u{390}".repeat(100),
        "full_name": "\u{390}".repeat(255),
        "password": SLOWEST_PASSWORD,
    })
}

fn another_user() -> Value {
    let mut user = longest_user();
    user["username"] = "\u{3b0}".repeat(100).into();
    user["email"] = format!("{}@example.com", "f".repeat(60)).into();
    user
}

/// As large as metadata may be, with as many values as it has room for.
fn metadata() -> Value {
    json!({"m": vec![0; 8000]})
}

/// Its characters take four bytes each.
fn longest_text() -> String {
    "\u{1f600}".repeat(100_000)
}

fn search(rest: &str) -> String {
    let words = format!("{}b+{}c", "a".repeat(98), "a".repeat(97));
    format!("{}{rest}{SOUGHT}{words}", talks!(""))
}

fn talk(world: &World, rest: &str) -> String {
    format!("{}/{}{rest}", talks!(""), world.talk)
}

fn message(world: &World) -> String {
    talk(world, &format!("/messages/{}", world.message))
}

fn key(world: &World, index: usize, rest: &str) -> String {
    format!("{}/{}{rest}", keys!(""), world.keys[index])
}

fn user(world: &World, rest: &str) -> String {
    format!("{}/{}{rest}", users!(""), world.user)
}

fn item() -> String {
    format!("/api/v1/items/{}", "i".repeat(64))
}

/// The longest `Idempotency-Key`, another one each time.
fn unique() -> String {
    format!("{:0>255}", uuid::Uuid::new_v4().simple().to_string())
}
