//! Requests to the real program with a configured master key.

use crate::support::process::Server;
use crate::support::{Answer, Call};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The master key of the servers.
pub const MASTER: &str = "a-key-of-the-torture-tests-0123456789abcdef";

/// The settings of every server: the master key, and no rate limits.
pub const PLAIN: [(&str, &str); 2] = [("MASTER_API_KEY", MASTER), ("RATE_LIMIT_ENABLED", "false")];

/// A client of a server, which uses the master key by default.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    base: String,
    /// Number of requests with the master key.
    keyed: Arc<AtomicI64>,
}

impl Caller {
    pub fn of(server: &Server) -> Self {
        let client = Client::builder().no_proxy().build().unwrap();
        Self { client, base: server.url(""), keyed: Arc::default() }
    }

    /// A request without a key.
    pub fn stranger(&self, method: Method, path: &str) -> Call {
        Call::new(self.client.request(method, format!("{}{path}", self.base)))
    }

    /// A request with the master key.
    pub fn call(&self, method: Method, path: &str) -> Call {
        self.keyed.fetch_add(1, Ordering::Relaxed);
        self.stranger(method, path).key(MASTER)
    }

    /// The number of requests with the master key.
    pub fn keyed(&self) -> i64 {
        self.keyed.load(Ordering::Relaxed)
    }

    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: Value) -> Call {
        self.call(Method::POST, path).json(body)
    }

    pub fn put(&self, path: &str, body: Value) -> Call {
        self.call(Method::PUT, path).json(body)
    }

    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// The status and the detail of `/ready`.
    pub async fn ready(&self) -> (u16, String) {
        let answer = self.stranger(Method::GET, "/ready").send().await;
        let status = answer["detail"].as_str().or(answer["status"].as_str()).unwrap_or_default();
        (answer.status, status.to_owned())
    }

    /// Signs in the user `name`.
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
