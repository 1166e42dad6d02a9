//! A real server and its callers, for requests whose cost is measured.

use crate::support::process::Server;
use crate::support::{Backend, Call};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// The master key of the server.
const MASTER: &str = "a-key-of-the-worst-requests-0123456789abcdef";
const PASSWORD: &str = "correct horse battery";

/// A server without rate limits, an admin key, and a signed-in user called `worst`.
pub struct Callers {
    pub server: Server,
    client: Client,
    base: String,
    /// The id of the signed-in user.
    pub signed_in: i64,
    session: String,
}

impl AsRef<Self> for Callers {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Callers {
    pub async fn new(backend: &Backend) -> Self {
        let variables = [
            ("MASTER_API_KEY", MASTER),
            ("RATE_LIMIT_ENABLED", "false"),
            // An unoptimised program needs this time for the largest bodies.
            ("REQUEST_TIMEOUT_SECONDS", "120"),
        ];
        let server = Server::start(backend, &variables).await;
        let (client, base) = (Client::builder().no_proxy().build().unwrap(), server.url(""));
        let mut callers = Self { server, client, base, signed_in: 0, session: String::new() };
        callers.signed_in = callers.register("worst").await;
        callers.session = callers.login("worst").await;
        callers
    }

    /// A request without a credential, whose response may be compressed.
    pub fn anonymous(&self, method: &str, path: &str) -> Call {
        self.request(method, path).header("Accept-Encoding", "br, gzip")
    }

    /// A request with the admin key.
    pub fn key(&self, method: &str, path: &str) -> Call {
        self.anonymous(method, path).key(MASTER)
    }

    /// A request of the signed-in user.
    pub fn user(&self, method: &str, path: &str) -> Call {
        self.anonymous(method, path).session(&self.session)
    }

    /// A request without a credential, whose response is not compressed.
    pub fn request(&self, method: &str, path: &str) -> Call {
        let method: Method = method.parse().unwrap();
        Call::new(self.client.request(method, format!("{}{path}", self.base)))
    }

    /// Sends a POST with the admin key. Returns the body of the response.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.request("POST", path).key(MASTER).json(body).send().await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.text);
        answer.body
    }

    /// Creates a user called `name`. Returns the id.
    pub async fn register(&self, name: &str) -> i64 {
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "username": name, "password": PASSWORD});
        self.post("/api/v1/users", body).await["id"].as_i64().unwrap()
    }

    /// Signs in the user called `name`. Returns the session token.
    pub async fn login(&self, name: &str) -> String {
        let body = json!({"username": name, "password": PASSWORD});
        let answer = self.request("POST", "/api/v1/users/login").json(body).send().await;
        answer.expect(200)["access_token"].as_str().unwrap().to_owned()
    }
}
