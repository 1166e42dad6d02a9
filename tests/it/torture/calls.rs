//! Requests to the real program, and its first key.

use crate::support::process::Server;
use crate::support::{Answer, Call};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// What the servers here are given as their first key.
pub const MASTER: &str = "a-key-of-the-torture-tests-0123456789abcdef";

/// What every server here is told: its first key, and to limit nobody.
pub const PLAIN: [(&str, &str); 2] = [("MASTER_API_KEY", MASTER), ("RATE_LIMIT_ENABLED", "false")];

/// Whoever calls a server, with its first key unless said otherwise.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    base: String,
}

impl Caller {
    pub fn of(server: &Server) -> Self {
        let client = Client::builder().no_proxy().build().unwrap();
        Self { client, base: server.url("") }
    }

    /// Without a key.
    pub fn stranger(&self, method: Method, path: &str) -> Call {
        Call::new(self.client.request(method, format!("{}{path}", self.base)))
    }

    pub fn get(&self, path: &str) -> Call {
        self.stranger(Method::GET, path).key(MASTER)
    }

    pub fn post(&self, path: &str, body: Value) -> Call {
        self.stranger(Method::POST, path).key(MASTER).json(body)
    }

    pub fn put(&self, path: &str, body: Value) -> Call {
        self.stranger(Method::PUT, path).key(MASTER).json(body)
    }

    pub fn delete(&self, path: &str) -> Call {
        self.stranger(Method::DELETE, path).key(MASTER)
    }

    /// Whether it is ready, and what it says of that.
    pub async fn ready(&self) -> (u16, String) {
        let answer = self.stranger(Method::GET, "/ready").send().await;
        let said = answer["detail"].as_str().or(answer["status"].as_str()).unwrap_or_default();
        (answer.status, said.to_owned())
    }

    /// A new user, logged in: the token.
    pub async fn login(&self, name: &str) -> Answer {
        let body = json!({"username": name, "password": "correct horse battery"});
        self.stranger(Method::POST, "/api/v1/users/login").json(body).send().await
    }

    pub async fn register(&self, name: &str) -> Answer {
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "username": name, "password": "correct horse battery"});
        self.post("/api/v1/users", body).send().await
    }
}
