//! The middleware around every handler, in the order of `api::app`.

use super::head;
use crate::core::error::{Error, Result, ScopeMissing};
use crate::core::metrics::{IN_FLIGHT, LATENCY, REQUESTS};
use crate::db::settled;
use crate::features::conversations::events;
use crate::http::quota::RemainingQuota;
use crate::http::{
    Client, Deadline, REQUEST_ID, RequestId, Revalidation, UnreadBody, track_unread,
};
use crate::security::authenticate::{
    self, ADDRESS_DENIED, ADDRESS_NOT_ALLOWED, Credentials, MISSING, Outcome,
};
use crate::security::usage::{self, Use};
use crate::security::{Actor, Caller, Denial, Key, SignedIn, revalidate, session};
use crate::state::AppState;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, ETAG, EXPECT, LINK, REFERRER_POLICY,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::SecondsFormat;
use http_body::Body as _;
use std::any::Any;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};
use tower_http::cors::CorsLayer;
use tracing::{Instrument, Span, field};

/// The header field with the expiry of a rotated key that is in its grace period.
const KEY_EXPIRES: HeaderName = HeaderName::from_static("octopus-api-key-expires");
/// How long a browser caches the result of a CORS preflight request.
const PREFLIGHT_AGE: Duration = Duration::from_hours(1);

/// The outermost layer: assigns the request id, determines the client's address, and logs and
/// measures the response.
pub async fn observe(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers().get(REQUEST_ID));
    let client = client(&app, &request);
    let method = known_method(request.method());
    let route = Route(request.extensions().get::<MatchedPath>().cloned());
    // At the error level, so that every event has the span whatever RUST_LOG filters out.
    let span = tracing::error_span!(
        "request",
        request_id = id.as_str(),
        method,
        route = route.as_str(),
        client = %client.ip,
        key_id = field::Empty,
        user_id = field::Empty,
    );
    if client.forged_header {
        let _entered = span.enter();
        tracing::warn!(
            target: "octopus::security",
            event = "proxy.untrusted",
            "ignored X-Forwarded-For from a peer that is not in TRUSTED_PROXIES"
        );
    }
    request.extensions_mut().insert(client);
    request.extensions_mut().insert(id.clone());
    let has_metrics = app.config.metrics_addr.is_some();
    let observed = Observed::new(span.clone(), method, route, has_metrics);
    let mut response = next.run(request).instrument(span).await;
    observed.complete(response.status());

    let headers = response.headers_mut();
    headers.reserve(8); // a single allocation, with room for what hyper adds
    headers.insert(REQUEST_ID, id.header());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let deny_all = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(deny_all);
    response
}

/// The pattern of the route that matched the request.
struct Route(Option<MatchedPath>);

impl Route {
    fn as_str(&self) -> &str {
        self.0.as_ref().map_or("unmatched", MatchedPath::as_str)
    }
}

/// A request in progress. Logs and counts it when dropped, also if the client disconnected early.
struct Observed {
    span: Span,
    method: &'static str,
    route: Route,
    /// Whether metrics are enabled.
    has_metrics: bool,
    started: Instant,
    status: u16,
}

impl Observed {
    /// nginx's status for a client that disconnected before the response.
    const CLIENT_CLOSED_REQUEST: u16 = 499;

    fn new(span: Span, method: &'static str, route: Route, has_metrics: bool) -> Self {
        metrics::gauge!(IN_FLIGHT).increment(1);
        let status = Self::CLIENT_CLOSED_REQUEST;
        Self { span, method, route, has_metrics, started: Instant::now(), status }
    }

    fn complete(mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        metrics::gauge!(IN_FLIGHT).decrement(1);
        let (elapsed, status) = (self.started.elapsed(), self.status);
        self.span.in_scope(|| {
            let latency_ms = elapsed.as_secs_f64() * 1000.0;
            tracing::info!(
                target: "octopus::access",
                event = "request",
                status,
                latency_ms,
                "request completed"
            );
        });
        if !self.has_metrics {
            return;
        }
        let labels = [
            ("method", self.method.to_owned()),
            ("route", self.route.as_str().to_owned()),
            ("status", status.to_string()),
        ];
        metrics::counter!(REQUESTS, &labels).increment(1);
        metrics::histogram!(LATENCY, &labels).record(elapsed);
    }
}

/// The method as a metrics label. Unknown methods share one label, so that clients cannot create
/// labels without limit.
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

/// The response to a panic in a handler. The panic hook has logged the panic already.
pub fn panicked(_: Box<dyn Any + Send>) -> Response {
    Error::Internal("a handler panicked".into()).into_response()
}

/// The CORS layer; `None` if no origin is configured, which allows no cross-origin requests.
pub fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
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
        "last-event-id",
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

/// The kind of caller, with its remaining quota; `None` if rate limits are off.
enum CallerQuota {
    Anonymous,
    Key(Actor, Option<RemainingQuota>),
    User(Option<RemainingQuota>),
}

/// Authenticates the request and stores the [`Caller`] in its extensions. Enforces the rate limit
/// of the caller, and records the usage of an API key.
pub async fn authenticate(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let missing = || Error::Internal("the route has no `observe` layer".into());
    let client = request.extensions().get::<Client>().copied().ok_or_else(missing)?;
    let id = request.extensions().get::<RequestId>().cloned().ok_or_else(missing)?;
    let used = Use { at: app.clock.now(), ip: Some(client.ip) };
    let credentials = Credentials { keys: &app.keys, db: &app.db, sessions: &app.config.sessions };
    let outcome =
        authenticate::authenticate(credentials, used.at, request.headers(), &client, id).await;
    let mut quota = CallerQuota::Anonymous;
    let caller = match outcome {
        Ok(Outcome::Valid(actor)) => {
            Span::current().record("key_id", actor.key_id());
            let remaining = match app.throttle.key(actor.key(), &client) {
                Ok(remaining) => remaining,
                Err(limited) => {
                    app.usage.count(actor.key(), usage::UsageOutcome::RateLimited, used.at);
                    let mut response = limited.into_response();
                    add_key_headers(actor.key(), None, &mut response);
                    return Ok(response);
                }
            };
            app.usage.note(actor.key(), used);
            if !request.method().is_safe() {
                request.extensions_mut().insert(revalidate_key_after_body(&app, &actor));
            }
            quota = CallerQuota::Key(actor.clone(), remaining);
            Caller::Key(actor)
        }
        Ok(Outcome::SignedIn(user)) => {
            Span::current().record("user_id", user.user_id());
            quota = CallerQuota::User(app.throttle.user(&user, &client)?);
            app.session_uses.note(&user, used.at);
            if !request.method().is_safe() {
                request.extensions_mut().insert(revalidate_session_after_body(&app, &user));
            }
            Caller::SignedIn(user)
        }
        Ok(Outcome::AddressDenied(key)) => {
            record_failure(&app, ADDRESS_DENIED, Some(&key), &client);
            app.usage.count(&key, usage::UsageOutcome::DeniedAddress, used.at);
            app.throttle.anonymous(&client)?;
            return Err(Error::Forbidden(ADDRESS_NOT_ALLOWED.into()));
        }
        Ok(Outcome::Missing) => {
            if !has_ticket(&request) {
                app.throttle.anonymous(&client)?;
            }
            Caller::Anonymous(MISSING)
        }
        Ok(Outcome::Invalid { why, reason, key }) => {
            record_failure(&app, reason, key.as_ref().map(|(key, _)| &**key), &client);
            if let Some((key, Denial::Expired)) = key {
                app.usage.count(&key, usage::UsageOutcome::Expired, used.at);
            }
            app.throttle.failure(&client)?;
            Caller::Anonymous(why)
        }
        Err(error) => {
            if matches!(error, Error::Refused(_)) {
                app.throttle.anonymous(&client)?;
            }
            return Err(error);
        }
    };
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    match quota {
        CallerQuota::Key(actor, remaining) => {
            let lacked_scope = response.extensions().get::<ScopeMissing>().is_some();
            let outcome = if lacked_scope {
                usage::UsageOutcome::DeniedScope
            } else {
                usage::UsageOutcome::Ok
            };
            app.usage.count(actor.key(), outcome, used.at);
            add_key_headers(actor.key(), remaining, &mut response);
        }
        CallerQuota::User(Some(remaining)) => remaining.write_headers(response.headers_mut()),
        CallerQuota::User(None) | CallerQuota::Anonymous => {}
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Returns whether the request has a stream ticket. The route of event streams authenticates and
/// counts such a request itself.
fn has_ticket(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>();
    route.is_some_and(|route| route.as_str() == events::ROUTE)
        && events::ticket_in_query(request.uri()).is_some()
}

/// Checks the API key again after the request body arrived.
fn revalidate_key_after_body(app: &AppState, actor: &Actor) -> Revalidation {
    let (keys, clock, actor) = (app.keys.clone(), app.clock.clone(), actor.clone());
    Revalidation::new(move || {
        let (keys, now, actor) = (keys.clone(), clock.now(), actor.clone());
        async move { revalidate::unchanged(&keys, &actor, now).await }
    })
}

/// Checks the session again after the request body arrived.
fn revalidate_session_after_body(app: &AppState, user: &SignedIn) -> Revalidation {
    let (app, user) = (app.clone(), user.clone());
    Revalidation::new(move || {
        let (app, user) = (app.clone(), user.clone());
        async move { session::revalidate(&app.db, &user, &app.config.sessions, app.clock.now()).await }
    })
}

/// Logs a refused credential, and counts it for the metrics and the audit log.
fn record_failure(app: &AppState, reason: &'static str, key: Option<&Key>, client: &Client) {
    authenticate::refused(reason, key, client);
    app.failures.note(client.ip, reason);
}

/// Adds the header fields for the remaining quota and, during a grace period, for the expiry of the
/// key.
fn add_key_headers(key: &Key, remaining: Option<RemainingQuota>, response: &mut Response) {
    let headers = response.headers_mut();
    if let Some(remaining) = remaining {
        remaining.write_headers(headers);
    }
    if let Some(end) = key.grace_expires_at.and(key.ends_at())
        && let Ok(value) = HeaderValue::from_str(&end.to_rfc3339_opts(SecondsFormat::Micros, true))
    {
        headers.insert(KEY_EXPIRES, value);
    }
}
