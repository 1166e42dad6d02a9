//! The name of a request, by which its answer, its log lines and its audit rows are found.

use axum::http::{HeaderName, HeaderValue};
use std::fmt::{self, Display, Formatter};
use uuid::Uuid;

/// The header field a request's id comes and goes in.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a client.
const MAX_LENGTH: usize = 128;

/// A request's id: 1–128 characters that can stand in a log. In its extensions.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The client's own id, if it is one that can stand in a log, or a new one.
    pub fn of(sent: Option<&HeaderValue>) -> Self {
        let fits = |id: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b);
            (1..=MAX_LENGTH).contains(&id.len()) && id.bytes().all(allowed)
        };
        let sent = sent.filter(|id| id.to_str().is_ok_and(fits));
        Self(sent.cloned().unwrap_or_else(|| {
            let id = Uuid::now_v7().to_string();
            HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
        }))
    }

    /// As it stands in logs.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// As it stands in the answer.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl Display for RequestId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
