//! Refuses what a page of any other web site can make a browser send: an HTML form, or a `fetch`
//! that needs no preflight because it names no content type.

use crate::core::error::{Error, Result};
use crate::http::host;
use crate::security::authenticate::API_KEY_HEADER;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use axum::middleware::Next;
use axum::response::Response;
use http_body::Body as _;

/// The content types of the Fetch standard that need no preflight.
const FORM_TYPES: [&str; 3] =
    ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

/// Fails with 415 for an unsafe request of a browser that a form could have sent.
pub async fn refuse(request: Request, next: Next) -> Result<Response> {
    if !request.method().is_safe() && is_form_like(&request) {
        return Err(Error::FormLike);
    }
    Ok(next.run(request).await)
}

fn is_form_like(request: &Request) -> bool {
    let headers = request.headers();
    if !is_of_browser(headers) {
        return false;
    }
    match headers.get(CONTENT_TYPE) {
        // Nothing is sent that could have a type: it is enough that no other site can have sent it.
        None if request.body().is_end_stream() => !is_ours(request),
        None => true,
        Some(value) => {
            let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            FORM_TYPES.iter().any(|form| essence.trim().eq_ignore_ascii_case(form))
        }
    }
}

/// Browsers send `Sec-Fetch-…` to trustworthy addresses, and `Origin` with every unsafe method.
fn is_of_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN)
        || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

/// Whether it comes from a page of this server, or has a credential, which needs a preflight.
fn is_ours(request: &Request) -> bool {
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
