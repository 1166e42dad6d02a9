//! Limits on the head of a request, checked before any other processing.

use crate::core::error::{Error, Result};
use crate::http::host;
use axum::extract::Request;

/// Maximum number of header fields in a request.
const MAX_FIELDS: usize = 100;
/// Maximum size of the request target and the header fields, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Checks the head of `request`. Fails with 431 if it exceeds a limit, which is lower than hyper's
/// own, and with 400 if `Host` is missing, ambiguous or malformed.
pub fn check(request: &Request) -> Result<()> {
    if is_too_large(request) {
        return Err(Error::HeadTooLarge);
    }
    host::check(request.version(), request.headers())
}

fn is_too_large(request: &Request) -> bool {
    let fields = request.headers();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let bytes: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    fields.len() > MAX_FIELDS || target + bytes > MAX_HEAD_BYTES
}
