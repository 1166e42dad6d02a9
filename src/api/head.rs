//! What the head of every request must keep, before anything looks at it.

use crate::core::error::{Error, Result};
use crate::http::host;
use axum::extract::Request;

/// Most header fields of a request.
const MAX_FIELDS: usize = 100;
/// Most bytes of the target and the header fields of a request.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Fails with 431 for a head that is larger than any client of ours needs, while hyper could still
/// take it, and with 400 for a `Host` that is missing, ambiguous or malformed.
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
