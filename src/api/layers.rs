//! What happens around every handler, in the order of `api::app`.

use crate::core::error::{Error, Result};
use crate::core::metrics::{IN_FLIGHT, LATENCY, REQUESTS};
use crate::http::{Client, Deadline, salvage};
use crate::security::Caller;
use crate::security::authenticate::{self, Outcome};
use crate::security::last_used::Use;
use crate::state::AppState;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, EXPECT, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};
use tower_http::cors::CorsLayer;
use tracing::{Instrument, Span, field};
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most header fields of a request.
const MAX_FIELDS: usize = 100;
/// Most bytes of the target and the header fields of a request.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// How long a browser remembers what another site may do.
const PREFLIGHT_AGE: Duration = Duration::from_hours(1);

/// Outermost: names the request, finds out the client, logs and measures the answer.
pub async fn observe(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let client = client(&app, &request);
    let method = known_method(request.method());
    let route = match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_owned(),
        None => "unmatched".to_owned(),
    };
    // Of the error level, so that warnings have it whatever RUST_LOG lets through.
    let span = tracing::error_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        method,
        route,
        client = %client.ip,
        key_id = field::Empty,
    );
    if client.forged_header {
        let _entered = span.enter();
        tracing::warn!(
            target: "octopus::security",
            event = "proxy.untrusted",
            "a peer that is not in TRUSTED_PROXIES sent X-Forwarded-For; it was ignored"
        );
    }
    request.extensions_mut().insert(client);
    let observed = Observed::new(span.clone(), method, route);
    let mut response = next.run(request).instrument(span).await;
    observed.answered(response.status());

    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(nothing);
    response
}

/// A request that is logged and counted at its end, also when that is a client that hangs up.
struct Observed {
    span: Span,
    method: &'static str,
    route: String,
    started: Instant,
    status: u16,
}

impl Observed {
    /// nginx's word for a client that did not wait for its answer.
    const CLIENT_CLOSED_REQUEST: u16 = 499;

    fn new(span: Span, method: &'static str, route: String) -> Self {
        metrics::gauge!(IN_FLIGHT).increment(1);
        let status = Self::CLIENT_CLOSED_REQUEST;
        Self { span, method, route, started: Instant::now(), status }
    }

    fn answered(mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        metrics::gauge!(IN_FLIGHT).decrement(1);
        let (elapsed, status) = (self.started.elapsed(), self.status);
        self.span.in_scope(|| {
            let latency_ms = elapsed.as_secs_f64() * 1000.0;
            tracing::info!(target: "octopus::access", event = "request", status, latency_ms, "answered");
        });
        let route = std::mem::take(&mut self.route);
        let labels =
            [("method", self.method.to_owned()), ("route", route), ("status", status.to_string())];
        metrics::counter!(REQUESTS, &labels).increment(1);
        metrics::histogram!(LATENCY, &labels).record(elapsed);
    }
}

/// The client's own id, if it is one that can stand in a log, or a new one.
fn request_id(request: &Request) -> HeaderValue {
    let fits = |id: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b);
        (1..=128).contains(&id.len()) && id.bytes().all(allowed)
    };
    let sent = request.headers().get(REQUEST_ID).filter(|id| id.to_str().is_ok_and(fits));
    sent.cloned().unwrap_or_else(|| {
        let id = Uuid::now_v7().to_string();
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

/// Methods anybody can make up must not become labels.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn client(app: &AppState, request: &Request) -> Client {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map_or([0, 0, 0, 0].into(), |peer| peer.0.ip());
    Client::of(peer, request.headers(), &app.config.trusted_proxies)
}

/// A panic is a fault of ours; its text is in the log already.
pub fn panicked(_: Box<dyn Any + Send>) -> Response {
    Error::Internal("a handler panicked".into()).into_response()
}

/// Nothing is allowed to other sites, unless configured.
pub fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let own = ["octopus-api-key", "authorization", "content-type", "x-request-id"];
    let shown = ["x-request-id", "ratelimit", "ratelimit-policy"];
    let shown = shown.map(HeaderName::from_static).into_iter().chain([RETRY_AFTER]);
    let layer = CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(own.map(HeaderName::from_static))
        .expose_headers(shown.collect::<Vec<_>>())
        .max_age(PREFLIGHT_AGE);
    Some(layer)
}

/// Refuses heads that no client of ours needs, while hyper could still take them.
pub async fn head_limit(request: Request, next: Next) -> Result<Response> {
    let fields = request.headers();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let bytes: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if fields.len() > MAX_FIELDS || target + bytes > MAX_HEAD_BYTES {
        return Err(Error::HeadTooLarge);
    }
    Ok(next.run(request).await)
}

/// Takes in what a refused request still sends, so that its client reads the answer.
pub async fn drain(request: Request, next: Next) -> Response {
    // A client that waits for "100 Continue" sends nothing after a refusal.
    if request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let (body, remainder) = salvage(body);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    // What came too slowly goes on coming too slowly.
    let is_slow = response.status() == StatusCode::REQUEST_TIMEOUT;
    if is_slow || !remainder.throw_away().await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Gives up a request whose handler takes too long.
pub async fn deadline(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let deadline = Deadline::new(app.config.limits.request_timeout);
    request.extensions_mut().insert(deadline.clone());
    let is_safe = request.method().is_safe();
    tokio::select! {
        response = next.run(request) => Ok(response),
        () = deadline.passed() => Err(Error::TimedOut(if is_safe {
            "The request took too long"
        } else {
            "The request took too long; what it asked for may still have happened"
        })),
    }
}

/// Runs a request that may change something in a task of its own, which shutdown waits for: a
/// client that hangs up must not cut a write in half.
pub async fn detach(State(app): State<AppState>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match app.tasks.spawn(next.run(request).instrument(Span::current())).await {
        Ok(response) => response,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => Error::Unavailable("The server is shutting down").into_response(),
    }
}

/// Finds out once who is calling, and leaves it on the request; counts the request in the bucket
/// that belongs to that.
pub async fn authenticate(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let client = request.extensions().get::<Client>().copied();
    let client = client.ok_or(Error::Internal("a request without a client".into()))?;
    let now = app.clock.now();
    let outcome = match authenticate::authenticate(&app.db, now, request.headers(), &client).await {
        Err(error @ (Error::Refused(_) | Error::Forbidden(_))) => {
            app.throttle.anonymous(&client)?;
            return Err(error);
        }
        outcome => outcome?,
    };
    let caller = match outcome {
        Outcome::Good(actor) => {
            Span::current().record("key_id", actor.key_id());
            app.throttle.key(&actor, &client)?;
            app.last_used.note(actor.key_id(), Use { at: now, ip: client.ip });
            Caller::Known(actor)
        }
        Outcome::Missing(caller) => {
            app.throttle.anonymous(&client)?;
            caller
        }
        Outcome::Bad(caller) => {
            app.throttle.failure(&client)?;
            caller
        }
    };
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
