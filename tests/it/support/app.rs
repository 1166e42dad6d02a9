//! A whole Octopus for one test, on a port of its own.

use super::{Answer, Backend, Call};
use chrono::TimeDelta;
use octopus::core::clock::Clock;
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
    /// With the default configuration, but without rate limits.
    pub async fn new(backend: &Backend) -> Self {
        Self::with(backend, &[("RATE_LIMIT_ENABLED", "false")]).await
    }

    /// With these variables alone.
    pub async fn with(backend: &Backend, variables: &[(&str, &str)]) -> Self {
        let config = backend.config(variables).await;
        let state = AppState::open(config, Clock::default()).await.unwrap();
        bootstrap::by_configuration(&state).await.unwrap();
        bootstrap::make_token(&state).await.unwrap();
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

    /// Tells the server to stop, and waits until it has.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        let _ = self.stop.take().unwrap().send(());
        self.server.await.unwrap()
    }

    /// Moves the server's clock forward.
    pub fn advance(&self, by: TimeDelta) {
        self.state.clock.advance(by);
    }

    /// A request, to be completed and sent.
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

    /// The first key, with every scope: its id is 1.
    pub async fn admin(&self) -> String {
        let created = bootstrap::by_host(&self.state).await;
        created.expect("the database has no key yet").key
    }

    /// A new key with `scopes`: its secret and its id.
    pub async fn key(&self, admin: &str, scopes: &str) -> (String, i64) {
        let body = json!({"name": format!("a key to {scopes}"), "scopes": scopes});
        let answer = self.post("/api/v1/api-keys", body).key(admin).send().await.expect(201);
        (answer["key"].as_str().unwrap().to_owned(), answer["id"].as_i64().unwrap())
    }

    /// A new user called `name`: its id.
    pub async fn user(&self, name: &str) -> i64 {
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "username": name, "password": "correct horse battery"});
        let answer = self.post("/api/v1/users", body).send().await.expect(201);
        answer["id"].as_i64().unwrap()
    }

    /// The token of a new session of the user that [`TestApp::user`] called `name`.
    pub async fn login(&self, name: &str) -> String {
        let body = json!({"username": name, "password": "correct horse battery"});
        let answer = self.post("/api/v1/users/login", body).send().await.expect(200);
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// A new conversation of these users: its id.
    pub async fn conversation(&self, key: &str, participant_ids: &[i64]) -> i64 {
        let body = json!({"title": "a talk", "participant_ids": participant_ids});
        let answer = self.post("/api/v1/conversations", body).key(key).send().await.expect(201);
        answer["id"].as_i64().unwrap()
    }

    /// The rows of a SELECT on the server's database.
    pub async fn rows<T: Row>(&self, sql: &'static str) -> Vec<T> {
        query(&self.state.db, sql).all().await.unwrap()
    }

    /// The number a SELECT gives.
    pub async fn number(&self, sql: &'static str) -> i64 {
        let (number,): (i64,) = query(&self.state.db, sql).one().await.unwrap();
        number
    }

    /// `n` times the same call at once: the answers.
    pub async fn at_once(&self, n: usize, call: impl Fn() -> Call) -> Vec<Answer> {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..n {
            tasks.spawn(call().send());
        }
        tasks.join_all().await
    }
}
