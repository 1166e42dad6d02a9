//! Requests as tests write them, and answers as they read them.

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use std::ops::Index;

/// A request to be sent.
pub struct Call(RequestBuilder);

/// An answer that has come.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Null where there is no JSON.
    pub body: Value,
    pub text: String,
}

impl Call {
    pub fn new(request: RequestBuilder) -> Self {
        Self(request)
    }

    /// With this key.
    pub fn key(self, key: &str) -> Self {
        self.header("Octopus-API-Key", key)
    }

    /// With the token of this session.
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

    /// With a body that may be anything.
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    /// The answer with its body still to be read.
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
    /// Its body, if its status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// Asserts that it is a refusal with exactly this `detail`.
    #[track_caller]
    pub fn refused(self, status: u16, detail: &str) {
        assert_eq!(
            (self.status, self.body["detail"].as_str()),
            (status, Some(detail)),
            "{}",
            self.text
        );
    }

    /// Asserts that it is a 422 that finds fault with exactly these places, each written like
    /// `body.name`.
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
