//! Cross-origin requests from browsers (CORS).

use axum::http::header::{ETAG, LINK, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method};
use std::time::Duration;
use tower_http::cors::CorsLayer;

/// How long a browser caches the result of a CORS preflight request.
const PREFLIGHT_AGE: Duration = Duration::from_hours(1);

/// The CORS layer; `None` if no origin is configured, which allows no cross-origin requests.
pub fn layer(origins: &[HeaderValue]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let request_headers = [
        "octopus-api-key",
        "authorization",
        "content-type",
        "x-request-id",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
        // Sent by clients that bypass caches, and by OpenTelemetry and other tracing in pages.
        "cache-control",
        "traceparent",
        "tracestate",
        "baggage",
    ];
    let response_headers = [
        "x-request-id",
        "ratelimit",
        "ratelimit-policy",
        "octopus-api-key-expires",
        "idempotency-replayed",
    ];
    let response_headers = response_headers.map(HeaderName::from_static);
    let response_headers = response_headers.into_iter().chain([ETAG, LINK, RETRY_AFTER]);
    let layer = CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(request_headers.map(HeaderName::from_static))
        .expose_headers(response_headers.collect::<Vec<_>>())
        .max_age(PREFLIGHT_AGE);
    Some(layer)
}
