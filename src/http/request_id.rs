//! Request ids, which connect a response with its log lines and audit entries.

use axum::http::{HeaderName, HeaderValue};
use std::fmt::{self, Display, Formatter};
use uuid::Uuid;

/// The header that carries the request id, in requests and in responses.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of an id that a client sends.
const MAX_LENGTH: usize = 128;

/// A request id: 1–128 characters that are safe in a log line. Kept in the request's extensions.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id that the client sent, if it is safe in a log line; otherwise a new UUIDv7.
    pub fn of(sent: Option<&HeaderValue>) -> Self {
        let is_safe = |id: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b);
            (1..=MAX_LENGTH).contains(&id.len()) && id.bytes().all(allowed)
        };
        let sent = sent.filter(|id| id.to_str().is_ok_and(is_safe));
        Self(sent.cloned().unwrap_or_else(|| {
            let id = Uuid::now_v7().to_string();
            HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
        }))
    }

    /// The id as text, for logs.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as a header value, for the response.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl Display for RequestId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
