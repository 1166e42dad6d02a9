//! A complete Octopus server for one test, in this process and on its own port.

use super::{Answer, Backend, Call};
use chrono::TimeDelta;
use octopus::core::clock::Clock;
use octopus::core::config::PasswordCost;
use octopus::db::{Row, query};
use octopus::features::api_keys::bootstrap;
use octopus::server::{self, ServerError};
use octopus::state::AppState;
use reqwest::Method;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub struct TestApp {
    pub address: SocketAddr,
    pub state: AppState,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), ServerError>>,
}

impl TestApp {
    /// Starts a server with the default configuration, but without rate limits.
    pub async fn new(backend: &Backend) -> Self {
        Self::with(backend, &[("RATE_LIMIT_ENABLED", "false")]).await
    }

    /// Starts a server with these variables only. It hashes passwords at the lowest cost.
    pub async fn with(backend: &Backend, variables: &[(&str, &str)]) -> Self {
        let argon2id = argon2::Params::new(8, 1, 1, None).unwrap();
        Self::with_cost(backend, variables, PasswordCost { argon2id, bcrypt: 4 }).await
    }

    /// Starts a server that hashes passwords at `cost`.
    pub async fn with_cost(
        backend: &Backend,
        variables: &[(&str, &str)],
        cost: PasswordCost,
    ) -> Self {
        let mut config = backend.config(variables).await;
        config.password_cost = cost;
        let state = AppState::open(config, Clock::default()).await.unwrap();
        bootstrap::from_master_key(&state).await.unwrap();
        bootstrap::prepare(&state).await.unwrap();
        Self::serve(state)
    }

    fn serve(state: AppState) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server::run(listener, state.clone(), async {
            let _ = stopped.await;
        }));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address, state, client, stop: Some(stop), server }
    }

    /// Shuts the server down and waits for its end.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        let _ = self.stop.take().unwrap().send(());
        self.server.await.unwrap()
    }

    /// Advances the server's clock.
    pub fn advance(&self, by: TimeDelta) {
        self.state.clock.advance(by);
    }

    /// A request to complete and send.
    pub fn call(&self, method: Method, path: &str) -> Call {
        Call::new(self.client.request(method, format!("http://{}{path}", self.address)))
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

    pub fn patch(&self, path: &str, body: Value) -> Call {
        self.call(Method::PATCH, path).json(body)
    }

    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// A POST without a body.
    pub fn act(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    /// Creates the first key, with every scope and id 1. Returns its secret.
    pub async fn admin(&self) -> String {
        let created = bootstrap::from_command_line(&self.state).await;
        created.expect("the database has no key yet").key.expose().to_owned()
    }

    /// Creates a key with `scopes`. Returns its secret and id.
    pub async fn key(&self, admin: &str, scopes: &str) -> (String, i64) {
        let body = json!({"name": format!("a key to {scopes}"), "scopes": scopes});
        let answer = self.post("/api/v1/api-keys", body).key(admin).send().await.expect(201);
        (answer["key"].as_str().unwrap().to_owned(), answer["id"].as_i64().unwrap())
    }

    /// Creates a user called `name`. Returns the id.
    pub async fn user(&self, name: &str) -> i64 {
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "username": name, "password": "correct horse battery"});
        let answer = self.post("/api/v1/users", body).send().await.expect(201);
        answer["id"].as_i64().unwrap()
    }

    /// Signs in the user that [`TestApp::user`] created. Returns the session token.
    pub async fn login(&self, name: &str) -> String {
        let body = json!({"username": name, "password": "correct horse battery"});
        let answer = self.post("/api/v1/users/login", body).send().await.expect(200);
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// Creates a conversation of these users. Returns the id.
    pub async fn conversation(&self, key: &str, participant_ids: &[i64]) -> i64 {
        let body = json!({"title": "a talk", "participant_ids": participant_ids});
        let answer = self.post("/api/v1/conversations", body).key(key).send().await.expect(201);
        answer["id"].as_i64().unwrap()
    }

    /// The rows of a SELECT on the server's database.
    pub async fn rows<T: Row>(&self, sql: &'static str) -> Vec<T> {
        query(&self.state.db, sql).all().await.unwrap()
    }

    /// The number that a SELECT returns.
    pub async fn number(&self, sql: &'static str) -> i64 {
        let (number,): (i64,) = query(&self.state.db, sql).one().await.unwrap();
        number
    }

    /// Sends the same call `n` times concurrently. Returns the responses.
    pub async fn send_concurrently(&self, n: usize, call: impl Fn() -> Call) -> Vec<Answer> {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..n {
            tasks.spawn(call().send());
        }
        tasks.join_all().await
    }
}
