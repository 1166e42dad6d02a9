//! The `Idempotency-Key` of a request, read together with its JSON body.

use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::core::error::{Error, Result};
use crate::http::extract::checked::Checked;
use crate::http::extract::fields::Fields;
use crate::http::extract::json::receive;
use axum::extract::{FromRef, FromRequest, OriginalUri, Request};
use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use std::sync::Arc;

const HEADER: &str = "Idempotency-Key";
/// Maximum length of a key.
const MAX_LENGTH: usize = 255;

/// The JSON body of a request and its optional `Idempotency-Key`. Fails like
/// [`Json`](crate::http::Json), and with 422 when the key is invalid.
#[derive(Debug)]
pub struct Idempotent<T: Checked>(pub T::Valid, pub Option<IdempotencyKey>);

/// Identifies a request among those of the same caller.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    pub(super) method: String,
    pub(super) path: String,
    /// SHA-256 of the key, which is hashed because clients may use a secret as the key.
    pub(super) key_hash: [u8; 32],
    /// SHA-256 of the body.
    pub(super) request_hash: [u8; 32],
}

impl<S, T: Checked> FromRequest<S> for Idempotent<T>
where
    S: Send + Sync,
    Arc<Config>: FromRef<S>,
    Clock: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let key = header(request.headers())?;
        let method = request.method().to_string();
        let full_path = request.extensions().get::<OriginalUri>().map(|uri| uri.path().to_owned());
        let path = full_path.unwrap_or_else(|| request.uri().path().to_owned());
        // Paths with and without a trailing slash are the same route.
        let path = path.trim_end_matches('/').to_owned();
        let has_key = key.is_some();
        let hash = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        let (valid, request_hash) =
            receive::<T, S, _>(request, state, move |bytes| has_key.then(|| hash(bytes))).await?;
        let key = key.zip(request_hash).map(|(key, request_hash)| IdempotencyKey {
            method,
            path,
            key_hash: hash(key.as_bytes()),
            request_hash,
        });
        Ok(Self(valid, key))
    }
}

fn header(headers: &HeaderMap) -> Result<Option<String>> {
    let mut fields = headers.get_all(HEADER).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    let text = field.to_str().unwrap_or_default();
    let fits = (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !fits || fields.next().is_some() {
        let msg = format!(
            "Value error, must be a single value of 1 to {MAX_LENGTH} visible ASCII characters"
        );
        return Err(invalid(msg, text));
    }
    Ok(Some(text.to_owned()))
}

/// A 422 error for the header.
pub(super) fn invalid(msg: impl Into<String>, input: &str) -> Error {
    Fields::refusal("header", HEADER, "value_error", msg, input)
}
