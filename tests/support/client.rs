//! Requests and responses, with helpers for tests.

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use std::ops::Index;

/// A request to send.
pub struct Call(RequestBuilder);

/// A received response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Null if the body is not JSON.
    pub body: Value,
    pub text: String,
}

impl Call {
    pub fn new(request: RequestBuilder) -> Self {
        Self(request)
    }

    /// Adds an API key.
    pub fn key(self, key: &str) -> Self {
        self.header("Octopus-API-Key", key)
    }

    /// Adds a session token.
    pub fn session(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        Self(self.0.header(name, value.as_ref()))
    }

    #[expect(clippy::needless_pass_by_value, reason = "calls read better")]
    pub fn json(self, body: Value) -> Self {
        Self(self.0.json(&body))
    }

    /// Sets a raw body.
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    /// Sends the request. The body of the response is not read yet.
    pub async fn open(self) -> reqwest::Response {
        self.0.send().await.expect("the server answers")
    }

    pub async fn send(self) -> Answer {
        self.try_send().await.expect("the server answers")
    }

    pub async fn try_send(self) -> reqwest::Result<Answer> {
        let response = self.0.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, headers, body, text })
    }
}

impl Answer {
    /// Asserts the status and returns the body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// Asserts an error with this status and exactly this `detail`.
    #[track_caller]
    pub fn refused(self, status: u16, detail: &str) {
        assert_eq!(
            (self.status, self.body["detail"].as_str()),
            (status, Some(detail)),
            "{}",
            self.text
        );
    }

    /// Asserts a 422 with errors at exactly these places, each in the form `body.name`.
    #[track_caller]
    pub fn invalid(self, places: &[&str]) {
        assert_eq!(self.status, 422, "{}", self.text);
        let place = |error: &Value| {
            let steps = error["loc"].as_array().expect("a loc").iter();
            let words = steps.map(|s| s.as_str().map_or_else(|| s.to_string(), str::to_owned));
            words.collect::<Vec<_>>().join(".")
        };
        let mut found: Vec<String> =
            self.body["detail"].as_array().expect("a list").iter().map(place).collect();
        found.sort();
        let mut places = places.to_vec();
        places.sort_unstable();
        assert_eq!(found, places, "{}", self.text);
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The target of the link `rel`.
    pub fn link(&self, rel: &str) -> Option<String> {
        let end = format!(">; rel=\"{rel}\"");
        let target = |link: &str| Some(link.strip_suffix(&end)?.strip_prefix('<')?.to_owned());
        self.header("link")?.split(", ").find_map(target)
    }

    pub fn is_server_error(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_server_error())
    }
}

impl Index<&str> for Answer {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        &self.body[name]
    }
}
