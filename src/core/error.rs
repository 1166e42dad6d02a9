//! Every way a request can fail, and the FastAPI-shaped answer for each.

use super::trouble::Trouble;
use axum::Json;
use axum::http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;

/// What a fallible step of a request gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Named by meaning; only [`Error::status`] knows HTTP. The text of each is the answer's `detail`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No credential, or none that is good.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// A good credential that may not.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// A good credential that lacks a scope.
    #[error("{sentence}")]
    ScopeMissing {
        /// The narrowest scope that would do.
        scope: &'static str,
        /// What it would be needed for.
        sentence: String,
    },
    /// The thing named does not exist.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// No route has this path.
    #[error("Not Found")]
    NoRoute,
    /// The route has other methods.
    #[error("Method Not Allowed")]
    NoMethod,
    /// Understood, and refused.
    #[error("{0}")]
    Refused(Cow<'static, str>),
    /// The state of the thing forbids it.
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    /// It was meant for another version of the thing.
    #[error("It was changed meanwhile: get it again, and send the new ETag in If-Match")]
    Stale,
    /// Fields that break their rules, all of them.
    #[error("the request has invalid fields")]
    Invalid(Vec<FieldError>),
    /// The body is larger than this many bytes.
    #[error("The request body is larger than {0} bytes")]
    BodyTooLarge(usize),
    /// The body says it is not JSON.
    #[error("The request body must be JSON: send Content-Type: application/json")]
    NotJson,
    /// The body says it is not lines of JSON.
    #[error("The request body must be lines of JSON: send Content-Type: application/x-ndjson")]
    NotLines,
    /// A browser sent it as it would send an HTML form.
    #[error(
        "A browser's request must have a Content-Type that no HTML form can send: application/json, \
         or application/x-ndjson for an import"
    )]
    FormLike,
    /// The head of the request is larger than we take.
    #[error("The request has too many or too large header fields")]
    HeadTooLarge,
    /// The body came too slowly.
    #[error("The request's body took too long to arrive")]
    BodyTooSlow,
    /// A limit is used up.
    #[error("Rate limit exceeded: {} per 1 minute", .0.per_minute)]
    RateLimited(RateLimited),
    /// The caller has as many of these open as it may.
    #[error("{0}")]
    TooManyOpen(&'static str),
    /// The answer took too long.
    #[error("{0}")]
    TimedOut(&'static str),
    /// It may work later.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The database failed.
    #[error("Internal Server Error")]
    Database(#[from] sqlx::Error),
    /// A fault of ours; the text is for the log.
    #[error("Internal Server Error")]
    Internal(Cow<'static, str>),
}

/// On an answer that refuses a key for want of a scope, for those who count such answers.
#[derive(Clone, Copy, Debug)]
pub struct ScopeMissing;

/// A limit that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// Its name in `RateLimit` and `RateLimit-Policy`.
    pub policy: &'static str,
    /// Requests it allows a minute.
    pub per_minute: u32,
    /// Whole seconds, at least one, until the next is allowed.
    pub retry_after: u64,
}

/// One field that breaks a rule, as pydantic v2 writes it.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// pydantic's name of the rule.
    #[schema(example = "string_too_short")]
    pub r#type: Cow<'static, str>,
    /// Where: `body`, `query`, `path` or `header`, then the names and indices that lead there.
    #[schema(example = json!(["body", "name"]))]
    pub loc: Vec<Loc>,
    /// The rule in words.
    #[schema(example = "String should have at least 1 character")]
    pub msg: String,
    /// What was sent, without secrets and shortened.
    #[schema(value_type = Value)]
    pub input: Value,
}

/// A step of a [`FieldError`]'s `loc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Loc {
    /// A field.
    Name(Cow<'static, str>),
    /// A place in a list.
    Index(usize),
}

/// What is wrong: a sentence, or on 422 a list of fields.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
enum Detail {
    Sentence(String),
    Fields(Vec<FieldError>),
}

/// The body of every refusal but 422.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// What is wrong, in a sentence.
    #[schema(example = "API key not found")]
    pub detail: String,
}

/// The body of a 422: every field that breaks a rule.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ValidationErrorBody {
    /// The fields, in no particular order.
    pub detail: Vec<FieldError>,
}

#[derive(Serialize)]
struct Body {
    detail: Detail,
}

impl Error {
    /// The one place that knows status codes.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::ScopeMissing { .. } => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Stale => StatusCode::PRECONDITION_FAILED,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson | Self::NotLines | Self::FormLike => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::RateLimited(_) | Self::TooManyOpen(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(cause) if Trouble::of(cause).is_some() => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Database(cause) if Self::is_foreign_key_violation(cause) => StatusCode::CONFLICT,
            Self::Database(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether a unique constraint refused a row.
    pub fn is_unique_violation(error: &sqlx::Error) -> bool {
        error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
    }

    /// Whether a row was refused because what it refers to is gone.
    pub fn is_foreign_key_violation(error: &sqlx::Error) -> bool {
        error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
    }

    /// The answer's `detail`, unless that is a list; what went wrong with the database is logged.
    fn sentence(&self, status: StatusCode) -> String {
        match self {
            Self::Database(_) if status == StatusCode::CONFLICT => {
                "Something this request refers to was deleted meanwhile".to_owned()
            }
            Self::Database(cause) => {
                tracing::error!(
                    event = "database.failed",
                    error = cause as &dyn std::error::Error,
                    "the database failed"
                );
                Trouble::of(cause).map_or_else(|| self.to_string(), |t| t.sentence().to_owned())
            }
            Self::Internal(cause) => {
                tracing::error!(event = "request.failed", error = %cause, "the request failed");
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
            // Nobody knows when one ends; asking more often would not help.
            Self::TooManyOpen(_) => vec![(RETRY_AFTER, HeaderValue::from_static("5"))],
            Self::BodyTooSlow => vec![(CONNECTION, HeaderValue::from_static("close"))],
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => {
                vec![(RETRY_AFTER, HeaderValue::from_static("1"))]
            }
            _ => vec![],
        }
    }
}

impl RateLimited {
    /// `Retry-After`, and `RateLimit` and `RateLimit-Policy` of
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
    fn a_postgres_that_dies_while_it_is_connected_to_is_unavailable() {
        let text = "unexpected response from SSLRequest: 0x45".to_owned();
        let response = Error::Database(sqlx::Error::Protocol(text)).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }
}
