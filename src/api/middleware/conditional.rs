//! Conditional requests: `ETag` for single resources, and 304 for what the client already has (RFC
//! 9110, section 13).

use crate::core::error::{Error, Result};
use crate::http::is_known;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::Body as _;
use sha2::{Digest, Sha256};

/// Maximum size in bytes of a response that is hashed, which takes a fraction of a millisecond.
const MAX_HASHED: usize = 64 * 1024;

/// Returns whether `route`, a path with parameters in braces, is that of a single resource, which
/// has an `ETag` if it has at most 64 KiB.
pub fn is_single_resource(route: &str) -> bool {
    route.starts_with("/api/v1/") && (route.ends_with('}') || route.ends_with("/me"))
}

/// Adds an `ETag` to the response to a GET of a single resource that has none, and responds with
/// 304 if `If-None-Match` contains the `ETag`. The handler runs in any case, so a 304 needs the same
/// permission as the resource.
pub async fn revalidate(request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>();
    let is_single = route.is_some_and(|route| is_single_resource(route.as_str()));
    let headers = request.headers();
    let known = headers.contains_key(IF_NONE_MATCH).then(|| headers.clone());
    let response = next.run(request).await;
    if response.status() != StatusCode::OK {
        return response;
    }
    let tagged = if is_single { with_tag(response).await } else { Ok(response) };
    match (tagged, known) {
        (Ok(response), Some(known)) => not_modified_if(&known, response),
        (Ok(response), None) => response,
        (Err(error), _) => error.into_response(),
    }
}

/// Adds an `ETag` that is the hash of the body, unless the response has one or is streamed. It is
/// weak, because the response is the same with and without compression.
async fn with_tag(response: Response) -> Result<Response> {
    let size = response.body().size_hint().exact();
    let is_small = size.is_some_and(|bytes| bytes <= MAX_HASHED as u64);
    if !is_small || response.headers().contains_key(ETAG) {
        return Ok(response);
    }
    let internal = |error: &dyn std::error::Error| Error::Internal(error.to_string().into());
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_HASHED).await.map_err(|error| internal(&error))?;
    let hash = hex::encode(&Sha256::digest(&body)[..16]);
    let tag = HeaderValue::try_from(format!("W/\"{hash}\"")).map_err(|error| internal(&error))?;
    parts.headers.insert(ETAG, tag);
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Turns `response` into a 304 if the client knows its `ETag`.
fn not_modified_if(known: &HeaderMap, mut response: Response) -> Response {
    let tag = response.headers().get(ETAG);
    if !tag.is_some_and(|tag| is_known(known, tag)) {
        return response;
    }
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
    response.map(|_| Body::empty())
}
