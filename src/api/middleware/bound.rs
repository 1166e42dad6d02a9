//! The limits of every request: its head, its deadline and its unread body. Runs each write in a
//! separate task, so that a disconnect does not cancel it.

use super::head;
use crate::core::error::Error;
use crate::db::settled;
use crate::http::{Deadline, UnreadBody, track_unread};
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::Body as _;
use std::panic::resume_unwind;
use tracing::{Instrument, Span};

/// Enforces the limits of a request: refuses a head that is too large or has no valid `Host`,
/// responds with 504 if the handler exceeds the deadline, and discards the unread body of a refused
/// request, so that the client receives the response.
pub async fn bound(State(app): State<AppState>, request: Request, next: Next) -> Response {
    if let Err(error) = head::check(&request) {
        return error.into_response();
    }
    let (mut request, unread) = wrap_body(request);
    let deadline = Deadline::new(app.config.limits.request_timeout);
    request.extensions_mut().insert(deadline.clone());
    let is_safe = request.method().is_safe();
    let mut response = tokio::select! {
        biased; // a response that is ready immediately needs no timer
        response = detached(&app, request, next) => response,
        () = deadline.passed() => Error::TimedOut(if is_safe {
            "The request timed out"
        } else {
            "The request timed out; the change may still have happened"
        }).into_response(),
    };
    let Some(unread) = unread else { return response };
    // After a 408 the rest of the body would be too slow as well: it is not read.
    let is_slow = response.status() == StatusCode::REQUEST_TIMEOUT;
    if is_slow || !unread.discard().await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Wraps the body of `request`, so that its unread rest can be discarded later. `None` if there is
/// no body, or if the client waits for "100 Continue" and sends no body after a refusal.
fn wrap_body(request: Request) -> (Request, Option<UnreadBody>) {
    if request.body().is_end_stream() || request.headers().contains_key(EXPECT) {
        return (request, None);
    }
    let (parts, body) = request.into_parts();
    let (body, unread) = track_unread(body);
    (Request::from_parts(parts, body), Some(unread))
}

/// Runs an unsafe request in a spawned task, which shutdown waits for: a client that disconnects
/// must not cancel a write in progress.
async fn detached(app: &AppState, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let work = settled(next.run(request)).instrument(Span::current());
    match app.tasks.spawn(work).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => Error::from(error).into_response(),
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => Error::Unavailable("The server is shutting down").into_response(),
    }
}
