//! The most expensive valid request of every operation: the longest fields, the largest page, and
//! the most expensive characters.

use super::world::World;
use crate::support::Call;
use serde_json::{Value, json};

/// An operation and its most expensive request.
pub struct Row {
    pub method: &'static str,
    /// The path in the OpenAPI document, or a static file.
    pub path: &'static str,
    pub worst: fn(&World) -> Call,
    /// Whether it may be refused after its work or have no effect.
    pub may_fail: bool,
}

/// Requests the largest page of a list.
const PAGE: &str = "?limit=1000";
/// A search without hits, with the longest scan of each message.
const SOUGHT: &str = "?limit=100&q=";

const fn row(method: &'static str, path: &'static str, worst: fn(&World) -> Call) -> Row {
    Row { method, path, worst, may_fail: false }
}

/// A row whose request may be refused.
const fn refused(method: &'static str, path: &'static str, worst: fn(&World) -> Call) -> Row {
    Row { method, path, worst, may_fail: true }
}

macro_rules! conversations {
    ($rest:literal) => {
        concat!("/api/v1/conversations", $rest)
    };
}
macro_rules! conversation {
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
    row("get", "/", |w| w.anonymous("GET", "/")),
    row("get", "/health", |w| w.anonymous("GET", "/health")),
    row("get", "/ready", |w| w.anonymous("GET", "/ready")),
    row("get", "/docs/{name}", |w| w.anonymous("GET", "/docs/swagger-ui-bundle.js")),
    row("get", "/openapi.json", |w| w.anonymous("GET", "/openapi.json")),
    refused("post", "/bootstrap", |w| w.anonymous("POST", "/bootstrap")),
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
    // After the first time the name is taken, but the password is still estimated and hashed.
    refused("post", users!(""), |w| w.anonymous("POST", users!("")).json(longest_user())),
    row("post", users!("/login"), |w| {
        let body = json!({"username": "worst", "password": "correct horse battery"});
        w.anonymous("POST", users!("/login")).json(body)
    }),
    row("get", users!(""), |w| w.key("GET", &format!("{}{PAGE}", users!("")))),
    row("get", users!("/username/{username}"), |w| {
        w.anonymous("GET", &format!("{}/username/{}", users!(""), w.names[0]))
    }),
    row("get", users!("/{user_id}"), |w| w.key("GET", &user(w, ""))),
    row("put", users!("/{user_id}"), |w| w.key("PUT", &user(w, "")).json(another_user())),
    row("post", users!("/{user_id}/password-reset"), |w| {
        w.key("POST", &user(w, "/password-reset"))
    }),
    row("get", users!("/{user_id}/export"), |w| w.key("GET", &user(w, "/export"))),
    row("post", users!("/password-reset"), |w| {
        let body = json!({"token": w.reset_token, "new_password": SLOWEST_PASSWORD});
        w.anonymous("POST", users!("/password-reset")).json(body)
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
    row("post", users!("/logout"), |w| {
        w.anonymous("POST", users!("/logout")).session(&w.ending[1])
    }),
    // conversations
    row("post", conversations!(""), |w| {
        let body = json!({"title": "\u{390}".repeat(255), "participant_usernames": w.names,
            "metadata": metadata()});
        w.user("POST", conversations!("")).header("Idempotency-Key", unique()).json(body)
    }),
    row("get", conversations!(""), |w| {
        w.user("GET", &format!("{}{PAGE}&message_limit=1000&order=recent", conversations!("")))
    }),
    row("get", conversations!("/search"), |w| w.user("GET", &search("/search"))),
    row("post", conversations!("/import"), |w| {
        let call =
            w.key("POST", conversations!("/import")).header("Content-Type", "application/x-ndjson");
        call.body(w.import.clone())
    }),
    row("get", conversations!("/user/{user_id}"), |w| {
        let query = format!("{PAGE}&message_limit=1000");
        w.key("GET", &format!("{}/user/{}{query}", conversations!(""), w.user - 3))
    }),
    row("get", conversation!(""), |w| w.user("GET", &conversation(w, "?message_limit=1000"))),
    row("put", conversation!(""), |w| {
        let body = json!({"title": "\u{390}".repeat(255), "metadata": metadata()});
        w.key("PUT", &conversation(w, "")).json(body)
    }),
    row("get", conversation!("/events"), |w| w.user("GET", &conversation(w, "/events"))),
    row("post", conversation!("/events/ticket"), |w| {
        w.user("POST", &conversation(w, "/events/ticket"))
    }),
    row("get", conversation!("/export"), |w| w.user("GET", &conversation(w, "/export"))),
    row("get", conversation!("/messages"), |w| {
        w.user("GET", &conversation(w, &format!("/messages{PAGE}")))
    }),
    row("post", conversation!("/messages"), |w| {
        let body = json!({"role": "user", "content": longest_text(), "metadata": metadata()});
        let path = format!("{}/{}/messages", conversations!(""), w.written);
        w.user("POST", &path).header("Idempotency-Key", unique()).json(body)
    }),
    row("post", conversation!("/messages/batch"), |w| {
        let path = format!("{}/{}/messages/batch", conversations!(""), w.written);
        let call = w.user("POST", &path).header("Content-Type", "application/json");
        call.header("Idempotency-Key", unique()).body(w.batch.clone())
    }),
    row("get", conversation!("/messages/{message_id}"), |w| w.user("GET", &message(w))),
    row("patch", conversation!("/messages/{message_id}"), |w| {
        w.key("PATCH", &message(w)).json(json!({"content": longest_text(), "metadata": metadata()}))
    }),
    row("delete", conversation!("/messages/{message_id}"), |w| w.key("DELETE", &message(w))),
    row("get", conversation!("/search"), |w| {
        w.user("GET", &search(&format!("/{}/search", w.conversation)))
    }),
    row("get", conversation!("/participants"), |w| {
        w.user("GET", &conversation(w, &format!("/participants{PAGE}")))
    }),
    // Before the next row, because the conversation has the maximum of participants.
    row("delete", conversation!("/participants/{user_id}"), |w| {
        w.key("DELETE", &conversation(w, &format!("/participants/{}", w.user - 2)))
    }),
    row("post", conversation!("/participants"), |w| {
        w.user("POST", &conversation(w, "/participants")).json(json!({"username": w.names[999]}))
    }),
    row("delete", conversation!(""), |w| {
        w.key("DELETE", &format!("{}/{}", conversations!(""), w.doomed))
    }),
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
    // operations that end users and sessions
    row("delete", users!("/{user_id}"), |w| w.key("DELETE", &user(w, ""))),
    row("delete", users!("/me/sessions"), |w| {
        w.user("DELETE", &format!("{}?keep_current=true", users!("/me/sessions")))
    }),
    row("delete", users!("/me"), |w| {
        w.user("DELETE", users!("/me")).json(json!({"current_password": "correct horse battery"}))
    }),
];

/// The password with the slowest strength estimation found so far: each character can substitute
/// several letters.
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

/// Metadata of maximum size with the maximum number of values.
fn metadata() -> Value {
    json!({"m": vec![0; 8000]})
}

/// Each character has four bytes.
fn longest_text() -> String {
    "\u{1f600}".repeat(100_000)
}

fn search(rest: &str) -> String {
    let words = format!("{}b+{}c", "a".repeat(98), "a".repeat(97));
    format!("{}{rest}{SOUGHT}{words}", conversations!(""))
}

fn conversation(world: &World, rest: &str) -> String {
    format!("{}/{}{rest}", conversations!(""), world.conversation)
}

fn message(world: &World) -> String {
    conversation(world, &format!("/messages/{}", world.message))
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

/// A unique `Idempotency-Key` of maximum length.
fn unique() -> String {
    format!("{:0>255}", uuid::Uuid::new_v4().simple().to_string())
}
