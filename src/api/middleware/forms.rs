//! Protection against cross-site request forgery (CSRF): refuses requests that a page of another
//! site can make a browser send without a CORS preflight. Those are HTML forms, and `fetch` calls
//! without a content type.

use crate::core::error::{Error, Result};
use crate::http::host;
use crate::security::authenticate::API_KEY_HEADER;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use axum::middleware::Next;
use axum::response::Response;
use http_body::Body as _;

/// The content types that need no preflight (Fetch standard, CORS-safelisted request-header).
const FORM_TYPES: [&str; 3] =
    ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

/// Refuses an unsafe browser request that a form could have sent. Fails with 415.
pub async fn refuse(request: Request, next: Next) -> Result<Response> {
    if !request.method().is_safe() && is_form_like(&request) {
        return Err(Error::HtmlFormContentType);
    }
    Ok(next.run(request).await)
}

fn is_form_like(request: &Request) -> bool {
    let headers = request.headers();
    if !is_from_browser(headers) {
        return false;
    }
    match headers.get(CONTENT_TYPE) {
        // Without a body there is no content type to check, so the origin decides.
        None if request.body().is_end_stream() => !is_same_origin_or_authenticated(request),
        None => true,
        Some(value) => {
            let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            FORM_TYPES.iter().any(|form| essence.trim().eq_ignore_ascii_case(form))
        }
    }
}

/// Returns whether a browser sent the request. Browsers send `Sec-Fetch-…` to potentially
/// trustworthy origins, and `Origin` with every unsafe method.
fn is_from_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN)
        || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

/// Returns whether the request is from a page of this server, or has a credential. A header field
/// with a credential requires a preflight, so another site cannot send it.
fn is_same_origin_or_authenticated(request: &Request) -> bool {
    let headers = request.headers();
    if headers.contains_key(API_KEY_HEADER) || headers.contains_key(AUTHORIZATION) {
        return true;
    }
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let host = host::of(request.uri(), headers);
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    origin.zip(host).is_some_and(|(origin, host)| host::is_origin_of(origin, &host))
}
