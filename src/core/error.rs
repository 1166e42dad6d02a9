//! The errors of requests, and their responses in the format of FastAPI.

use super::transient_error::TransientError;
use axum::Json;
use axum::http::header::{ACCEPT_ENCODING, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;

/// The result of a fallible step of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a request. The variants are independent of HTTP; [`Error::status`] gives the status
/// code. The message is the `detail` of the response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The credential is missing or invalid.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The credential is valid but does not permit the operation.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// The credential is valid but lacks a scope.
    #[error("{sentence}")]
    ScopeMissing {
        /// The narrowest sufficient scope.
        scope: &'static str,
        /// The message: which operation needs the scope.
        sentence: String,
    },
    /// The resource does not exist, or the caller may not see it.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// No route has this path.
    #[error("Not Found")]
    RouteNotFound,
    /// The route does not support this method.
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    /// The request is well-formed but cannot be carried out.
    #[error("{0}")]
    Refused(Cow<'static, str>),
    /// The request conflicts with the current state of the resource.
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    /// `If-Match` names an older version of the resource.
    #[error("The resource has changed: get it again and send the new ETag in If-Match")]
    PreconditionFailed,
    /// Validation failed; the list has every invalid field.
    #[error("the request has invalid fields")]
    Invalid(Vec<FieldError>),
    /// The body is larger than this many bytes.
    #[error("The request body is larger than {0} bytes")]
    BodyTooLarge(usize),
    /// The `Content-Type` of the body is not JSON.
    #[error("The request body must be JSON: send Content-Type: application/json")]
    NotJson,
    /// The body has a `Content-Encoding`, such as gzip.
    #[error("The request body must not be compressed: send it without Content-Encoding")]
    EncodedBody,
    /// The `Content-Type` of the body is not NDJSON.
    #[error(
        "The request body must be newline-delimited JSON (NDJSON): send Content-Type: \
         application/x-ndjson"
    )]
    NotNdjson,
    /// A browser sent the request with a `Content-Type` that an HTML form can send.
    #[error(
        "A browser's request must have a Content-Type that no HTML form can send: \
         application/json, or application/x-ndjson for an import"
    )]
    HtmlFormContentType,
    /// The head of the request is larger than the limit.
    #[error("The request has too many or too large header fields")]
    HeadTooLarge,
    /// The body did not arrive in time.
    #[error("The request body took too long to arrive")]
    BodyTooSlow,
    /// A rate limit is exceeded.
    #[error("Rate limit exceeded: {} per 1 minute", .0.per_minute)]
    RateLimited(RateLimited),
    /// The caller has reached the maximum number of open streams.
    #[error("{0}")]
    TooManyStreams(&'static str),
    /// The handler did not respond in time.
    #[error("{0}")]
    TimedOut(&'static str),
    /// The server cannot handle the request now. A retry may succeed.
    #[error("{0}")]
    Unavailable(&'static str),
    /// A database error, transient or not.
    #[error("Internal Server Error")]
    Database(#[from] sqlx::Error),
    /// A fault of the server. The text is logged and not sent to the client.
    #[error("Internal Server Error")]
    Internal(Cow<'static, str>),
}

/// A response extension that marks [`Error::ScopeMissing`], so that usage counts such responses.
#[derive(Clone, Copy, Debug)]
pub struct ScopeMissing;

/// An exceeded rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// The name of the policy in `RateLimit` and `RateLimit-Policy`.
    pub policy: &'static str,
    /// Allowed requests per minute.
    pub per_minute: u32,
    /// Seconds until the next request is allowed, at least 1.
    pub retry_after: u64,
}

/// An invalid field, in the format of pydantic v2.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The error type of pydantic.
    #[schema(example = "string_too_short")]
    pub r#type: Cow<'static, str>,
    /// The location: `body`, `query`, `path` or `header`, then the names and indices of the field.
    #[schema(example = json!(["body", "name"]))]
    pub loc: Vec<Loc>,
    /// The rule that the value violates.
    #[schema(example = "String should have at least 1 character")]
    pub msg: String,
    /// The value that was sent, shortened and without secrets.
    #[schema(value_type = Value)]
    pub input: Value,
}

/// An element of `loc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Loc {
    /// The name of a field.
    Name(Cow<'static, str>),
    /// An index in a list.
    Index(usize),
}

/// The `detail` of a response: a message, or for 422 a list of fields.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
enum Detail {
    Sentence(String),
    Fields(Vec<FieldError>),
}

/// The body of every error response except 422.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// What is wrong, as a sentence.
    #[schema(example = "API key not found")]
    pub detail: String,
}

/// The body of a 422 response.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ValidationErrorBody {
    /// Every invalid field, in no particular order.
    pub detail: Vec<FieldError>,
}

#[derive(Serialize)]
struct Body {
    detail: Detail,
}

impl Error {
    /// Returns the status code of the response. No other module chooses an error status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::ScopeMissing { .. } => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::RouteNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson | Self::NotNdjson | Self::EncodedBody | Self::HtmlFormContentType => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::RateLimited(_) | Self::TooManyStreams(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(cause) if TransientError::of(cause).is_some() => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Database(cause) if Self::is_foreign_key_violation(cause) => StatusCode::CONFLICT,
            Self::Database(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns whether a row violated a unique constraint.
    pub fn is_unique_violation(error: &sqlx::Error) -> bool {
        error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
    }

    /// Returns whether a row violated a foreign key: a row that it references no longer exists.
    pub fn is_foreign_key_violation(error: &sqlx::Error) -> bool {
        error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
    }

    /// Returns the `detail` of the response, unless that is a list. Logs database and internal
    /// errors.
    fn sentence(&self, status: StatusCode) -> String {
        match self {
            Self::Database(_) if status == StatusCode::CONFLICT => {
                "A resource that this request refers to was deleted".to_owned()
            }
            Self::Database(cause) => {
                let transient_error = TransientError::of(cause);
                // A lost file is logged once, where it is detected.
                if !matches!(transient_error, Some(TransientError::FileLost(_))) {
                    tracing::error!(
                        event = "database.failed",
                        error = cause as &dyn std::error::Error,
                        "a database query failed"
                    );
                }
                transient_error.map_or_else(|| self.to_string(), |t| t.sentence().to_owned())
            }
            Self::Internal(cause) => {
                tracing::error!(event = "request.failed", error = %cause, "a request failed");
                self.to_string()
            }
            _ => self.to_string(),
        }
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::Unauthenticated(_) => {
                let challenge = HeaderValue::from_static(r#"Bearer realm="octopus""#);
                vec![(WWW_AUTHENTICATE, challenge)]
            }
            // RFC 6750, section 3.1.
            Self::ScopeMissing { scope, .. } => {
                let challenge = format!(
                    r#"Bearer realm="octopus", error="insufficient_scope", scope="{scope}""#
                );
                let challenge = HeaderValue::from_str(&challenge).ok();
                challenge.map(|challenge| (WWW_AUTHENTICATE, challenge)).into_iter().collect()
            }
            Self::RateLimited(limited) => limited.headers(),
            // The server cannot predict when a stream ends, so the delay is fixed.
            Self::TooManyStreams(_) => vec![(RETRY_AFTER, HeaderValue::from_static("5"))],
            // RFC 9110, section 12.5.3.
            Self::EncodedBody => vec![(ACCEPT_ENCODING, HeaderValue::from_static("identity"))],
            Self::BodyTooSlow => vec![(CONNECTION, HeaderValue::from_static("close"))],
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => {
                vec![(RETRY_AFTER, HeaderValue::from_static("1"))]
            }
            _ => vec![],
        }
    }
}

impl RateLimited {
    /// Returns `Retry-After`, and `RateLimit` and `RateLimit-Policy` of
    /// draft-ietf-httpapi-ratelimit-headers-10.
    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let Self { policy, per_minute, retry_after } = self;
        let fields = [
            (RETRY_AFTER, retry_after.to_string()),
            (HeaderName::from_static("ratelimit"), format!(r#""{policy}";r=0;t={retry_after}"#)),
            (
                HeaderName::from_static("ratelimit-policy"),
                format!(r#""{policy}";q={per_minute};w=60"#),
            ),
        ];
        let value = |text: String| HeaderValue::from_str(&text).ok();
        fields.into_iter().filter_map(|(name, text)| Some((name, value(text)?))).collect()
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let headers = self.headers();
        let sentence = self.sentence(status);
        let lacks_scope = matches!(self, Self::ScopeMissing { .. });
        let detail = match self {
            Self::Invalid(fields) => Detail::Fields(fields),
            _ => Detail::Sentence(sentence),
        };
        let mut response = (status, Json(Body { detail })).into_response();
        response.headers_mut().extend(headers);
        if lacks_scope {
            response.extensions_mut().insert(ScopeMissing);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_postgres_that_stops_during_the_tls_handshake_is_unavailable() {
        let text = "unexpected response from SSLRequest: 0x45".to_owned();
        let response = Error::Database(sqlx::Error::Protocol(text)).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }
}
