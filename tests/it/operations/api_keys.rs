//! The operations of API keys.

use super::{ADMIN, PAGE, Row, World};
use crate::support::operations::Needs::{AnyKey, Scope};
use serde_json::{Value, json};

macro_rules! keys {
    ($rest:literal) => {
        concat!("/api/v1/api-keys", $rest)
    };
}

pub const OPERATIONS: &[Row] = &[
    Row::new("post", keys!(""), ADMIN, |w| w.key("POST", keys!("")).json(longest_key())),
    Row::new("get", keys!(""), ADMIN, |w| {
        w.key("GET", &format!("{}{PAGE}&q={}", keys!(""), "%CE%90".repeat(250)))
    }),
    Row::new("get", keys!("/me"), AnyKey, |w| w.key("GET", keys!("/me"))),
    Row::new("post", keys!("/verify"), Scope("keys:verify"), |w| {
        let body = json!({"key": "k".repeat(1000), "scope": "read", "ip": "2001:db8::1"});
        w.key("POST", keys!("/verify")).json(body)
    }),
    Row::new("get", keys!("/audit-logs"), Scope("audit:read"), |w| {
        w.key("GET", &format!("{}{PAGE}", keys!("/audit-logs")))
    }),
    Row::new("get", keys!("/expiring"), ADMIN, |w| {
        w.key("GET", &format!("{}{PAGE}&days=3650", keys!("/expiring")))
    }),
    Row::new("post", keys!("/cleanup-expired"), ADMIN, |w| {
        w.key("POST", keys!("/cleanup-expired"))
    }),
    Row::new("get", keys!("/{api_key_id}"), ADMIN, |w| w.key("GET", &key(w, 0, ""))),
    Row::new("patch", keys!("/{api_key_id}"), ADMIN, |w| {
        w.key("PATCH", &key(w, 0, "")).json(longest_key())
    }),
    Row::new("post", keys!("/{api_key_id}/rotate"), ADMIN, |w| {
        w.key("POST", &key(w, 1, "/rotate"))
    }),
    Row::new("post", keys!("/{api_key_id}/deactivate"), ADMIN, |w| {
        w.key("POST", &key(w, 2, "/deactivate"))
    }),
    Row::new("get", keys!("/{api_key_id}/usage"), ADMIN, |w| {
        w.key("GET", &key(w, 0, "/usage?granularity=hour&since=2000-01-01T00:00:00Z"))
    }),
    Row::new("delete", keys!("/{api_key_id}"), ADMIN, |w| w.key("DELETE", &key(w, 3, ""))),
];

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

fn key(world: &World, index: usize, rest: &str) -> String {
    format!("{}/{}{rest}", keys!(""), world.keys[index])
}
