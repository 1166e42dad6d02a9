//! The operations of conversations.

use super::{ADMIN, PAGE, Row, World};
use crate::support::operations::Needs::{self, Scope, ScopeOrUser};
use serde_json::{Value, json};

const READ_CONVERSATIONS: Needs = ScopeOrUser("conversations:read");
const WRITE_CONVERSATIONS: Needs = ScopeOrUser("conversations:write");
/// A search without hits, with the longest scan of each message.
const SOUGHT: &str = "?limit=100&q=";

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

pub const OPERATIONS: &[Row] = &[
    Row::new("post", conversations!(""), WRITE_CONVERSATIONS, |w| {
        let body = json!({"title": "\u{390}".repeat(255), "participant_usernames": w.names,
            "metadata": metadata()});
        w.user("POST", conversations!("")).header("Idempotency-Key", unique()).json(body)
    })
    .bodies(|ids| {
        vec![
            json!({}),
            json!({"participant_ids": [ids["user_id"]]}),
            json!({"title": "new", "participant_ids": [ids["user_id"], ids["other_id"]]}),
        ]
    }),
    Row::new("get", conversations!(""), READ_CONVERSATIONS, |w| {
        w.user("GET", &format!("{}{PAGE}&message_limit=1000&order=recent", conversations!("")))
    }),
    Row::new("get", conversations!("/search"), READ_CONVERSATIONS, |w| {
        w.user("GET", &search("/search"))
    }),
    Row::new("post", conversations!("/import"), ADMIN, |w| {
        let call =
            w.key("POST", conversations!("/import")).header("Content-Type", "application/x-ndjson");
        call.body(w.import.clone())
    }),
    Row::new("get", conversations!("/user/{user_id}"), READ_CONVERSATIONS, |w| {
        let query = format!("{PAGE}&message_limit=1000");
        w.key("GET", &format!("{}/user/{}{query}", conversations!(""), w.user - 3))
    }),
    Row::new("get", conversation!(""), READ_CONVERSATIONS, |w| {
        w.user("GET", &conversation(w, "?message_limit=1000"))
    }),
    Row::new("put", conversation!(""), Scope("conversations:write"), |w| {
        let body = json!({"title": "\u{390}".repeat(255), "metadata": metadata()});
        w.key("PUT", &conversation(w, "")).json(body)
    })
    .bodies(|_| vec![json!({}), json!({"metadata": {}})]),
    Row::new("patch", conversation!(""), Scope("conversations:write"), |w| {
        let body = json!({"title": "\u{390}".repeat(255), "metadata": metadata()});
        w.key("PATCH", &conversation(w, "")).json(body)
    })
    .bodies(|_| vec![json!({}), json!({"metadata": {"new": 1}})]),
    Row::new("get", conversation!("/events"), READ_CONVERSATIONS, |w| {
        w.user("GET", &conversation(w, "/events"))
    }),
    Row::new("post", conversation!("/events/ticket"), READ_CONVERSATIONS, |w| {
        w.user("POST", &conversation(w, "/events/ticket"))
    }),
    Row::new("get", conversation!("/export"), READ_CONVERSATIONS, |w| {
        w.user("GET", &conversation(w, "/export"))
    }),
    Row::new("get", conversation!("/messages"), READ_CONVERSATIONS, |w| {
        w.user("GET", &conversation(w, &format!("/messages{PAGE}")))
    }),
    Row::new("post", conversation!("/messages"), WRITE_CONVERSATIONS, |w| {
        let body = json!({"role": "user", "content": longest_text(), "metadata": metadata()});
        let path = format!("{}/{}/messages", conversations!(""), w.written);
        w.user("POST", &path).header("Idempotency-Key", unique()).json(body)
    })
    .bodies(|ids| {
        vec![
            json!({"role": "system", "content": "new"}),
            json!({"role": "user", "content": "new", "user_id": ids["user_id"]}),
        ]
    }),
    Row::new("post", conversation!("/messages/batch"), WRITE_CONVERSATIONS, |w| {
        let path = format!("{}/{}/messages/batch", conversations!(""), w.written);
        let call = w.user("POST", &path).header("Content-Type", "application/json");
        call.header("Idempotency-Key", unique()).body(w.batch.clone())
    })
    .bodies(|ids| {
        let message = json!({"role": "user", "content": "new", "user_id": ids["user_id"]});
        vec![json!({"messages": [message, message]})]
    }),
    Row::new("get", conversation!("/messages/{message_id}"), READ_CONVERSATIONS, |w| {
        w.user("GET", &message(w))
    }),
    Row::new("patch", conversation!("/messages/{message_id}"), WRITE_CONVERSATIONS, |w| {
        w.key("PATCH", &message(w)).json(json!({"content": longest_text(), "metadata": metadata()}))
    })
    .bodies(|_| vec![json!({}), json!({"metadata": {"new": 1}})]),
    Row::new("delete", conversation!("/messages/{message_id}"), WRITE_CONVERSATIONS, |w| {
        w.key("DELETE", &message(w))
    }),
    Row::new("get", conversation!("/search"), READ_CONVERSATIONS, |w| {
        w.user("GET", &search(&format!("/{}/search", w.conversation)))
    }),
    Row::new("get", conversation!("/participants"), READ_CONVERSATIONS, |w| {
        w.user("GET", &conversation(w, &format!("/participants{PAGE}")))
    }),
    // Before the next row, because the conversation has the maximum of participants.
    Row::new("delete", conversation!("/participants/{user_id}"), WRITE_CONVERSATIONS, |w| {
        w.key("DELETE", &conversation(w, &format!("/participants/{}", w.user - 2)))
    }),
    Row::new("post", conversation!("/participants"), WRITE_CONVERSATIONS, |w| {
        w.user("POST", &conversation(w, "/participants")).json(json!({"username": w.names[999]}))
    })
    .bodies(|ids| vec![json!({"user_id": ids["user_id"]}), json!({"user_id": ids["other_id"]})]),
    Row::new("delete", conversation!(""), Scope("conversations:write"), |w| {
        w.key("DELETE", &format!("{}/{}", conversations!(""), w.doomed))
    }),
];

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

/// A unique `Idempotency-Key` of maximum length.
fn unique() -> String {
    format!("{:0>255}", uuid::Uuid::new_v4().simple().to_string())
}
