//! JSON request bodies, fully validated before the handler runs.

use super::checked::{Checked, Rules};
use super::fields::Fields;
use super::parse::{byte_order_mark, check};
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::core::error::{Error, Result};
use crate::core::offload::offload_large;
use crate::http::limits::deadline::Deadline;
use crate::http::revalidation::Revalidation;
use axum::body::{Body, Bytes};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use std::sync::Arc;

/// The JSON body of a request. Fails with 408, 413, 415 or 422.
#[derive(Debug)]
pub struct Json<T: Checked>(pub T::Valid);

impl<S, T: Checked> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    Arc<Config>: FromRef<S>,
    Clock: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        receive::<T, S, ()>(request, state, |_| ()).await.map(|(valid, ())| Self(valid))
    }
}

/// Reads and validates the body of a request; also returns `digest` of its bytes. A large body is
/// parsed, validated and digested outside the runtime's worker threads.
pub(crate) async fn receive<T, S, D>(
    request: Request,
    state: &S,
    digest: impl FnOnce(&[u8]) -> D + Send + 'static,
) -> Result<(T::Valid, D)>
where
    T: Checked,
    D: Send + 'static,
    Arc<Config>: FromRef<S>,
    Clock: FromRef<S>,
{
    let config = Arc::<Config>::from_ref(state);
    let revalidation = request.extensions().get::<Revalidation>().cloned();
    // Some clients send a form `Content-Type` with an empty body.
    let bytes = if T::OPTIONAL && request.body().is_end_stream() {
        Bytes::new()
    } else {
        if !is_accepted::<T>(request.headers()) {
            return Err(Error::NotJson);
        }
        read(request, config.limits.body_bytes.clamp(T::MIN_LIMIT, T::MAX_BYTES)).await?
    };
    if let Some(revalidation) = revalidation {
        revalidation.ask().await?;
    }
    // Taken after the body has arrived, which can take long, so that future times are still future.
    let now = Clock::from_ref(state).now();
    let bytes = bytes.slice(byte_order_mark(&bytes)..);
    // Replaced before `digest`, so that an empty body and `{}` have the same digest.
    let is_missing = T::OPTIONAL && [&b""[..], b"null"].contains(&bytes.trim_ascii());
    let bytes = if is_missing { Bytes::from_static(b"{}") } else { bytes };
    offload_large(bytes.len(), move || {
        let valid = check::<T>(&bytes, &Rules { now, config: &config })?;
        Ok((valid, digest(&bytes)))
    })
    .await
}

/// An empty body or an object without fields; anything else is rejected instead of silently
/// ignored. Fails with 408, 413, 415 or 422.
#[derive(Debug)]
pub struct NoBody;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

impl Checked for NoFields {
    type Valid = NoBody;
    const OPTIONAL: bool = true;

    fn check(self, _: &mut Fields, _: &Rules<'_>) -> NoBody {
        NoBody
    }
}

impl<S> FromRequest<S> for NoBody
where
    S: Send + Sync,
    Arc<Config>: FromRef<S>,
    Clock: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        Json::<NoFields>::from_request(request, state).await.map(|Json(none)| none)
    }
}

/// Reads a body of at most `max` bytes.
async fn read(request: Request, max: usize) -> Result<Bytes> {
    refuse_encoding(request.headers())?;
    let content_length =
        request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if content_length.is_some_and(|length: usize| length > max) {
        return Err(Error::BodyTooLarge(max));
    }
    let deadline = request.extensions().get::<Deadline>().cloned();
    let collecting = collect(request.into_body(), max);
    match deadline {
        Some(deadline) => deadline.while_reading(collecting).await.ok_or(Error::BodyTooSlow)?,
        None => collecting.await,
    }
}

async fn collect(body: Body, max: usize) -> Result<Bytes> {
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::BodyTooLarge(max)),
        // The client disconnected or broke the framing, so details would not reach it.
        Err(_) => Err(Error::Refused("The request body could not be read".into())),
    }
}

/// Fails with 415 if the body is compressed.
pub(super) fn refuse_encoding(headers: &HeaderMap) -> Result<()> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(()) };
    let is_identity = value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if is_identity { Ok(()) } else { Err(Error::EncodedBody) }
}

/// Returns whether a `T` may have the content type in `headers`. A missing one counts as JSON.
fn is_accepted<T: Checked>(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim();
    let is = |name| essence.eq_ignore_ascii_case(name);
    is("application/json") || T::MERGE_PATCH && is("application/merge-patch+json")
}
