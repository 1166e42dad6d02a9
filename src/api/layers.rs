//! What happens around every handler, in the order of `api::app`.

use super::head;
use crate::core::error::{Error, Result, ScopeMissing};
use crate::core::metrics::{IN_FLIGHT, LATENCY, REQUESTS};
use crate::db::settled;
use crate::features::conversations::events;
use crate::http::quota::Allowance;
use crate::http::{Client, Deadline, REQUEST_ID, Recheck, Remainder, RequestId, salvage};
use crate::security::authenticate::{
    self, ADDRESS_DENIED, Credentials, ELSEWHERE, MISSING, Outcome,
};
use crate::security::usage::{self, Use};
use crate::security::{Actor, Caller, Denial, Key, LoggedIn, recheck, session};
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

/// Until when a key works that another took the place of.
const KEY_EXPIRES: HeaderName = HeaderName::from_static("octopus-api-key-expires");
/// How long a browser remembers what another site may do.
const PREFLIGHT_AGE: Duration = Duration::from_hours(1);

/// Outermost: names the request, finds out the client, logs and measures the answer.
pub async fn observe(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers().get(REQUEST_ID));
    let client = client(&app, &request);
    let method = known_method(request.method());
    let route = Route(request.extensions().get::<MatchedPath>().cloned());
    // Of the error level, so that warnings have it whatever RUST_LOG lets through.
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
            "a peer that is not in TRUSTED_PROXIES sent X-Forwarded-For; it was ignored"
        );
    }
    request.extensions_mut().insert(client);
    request.extensions_mut().insert(id.clone());
    let is_counted = app.config.metrics_addr.is_some();
    let observed = Observed::new(span.clone(), method, route, is_counted);
    let mut response = next.run(request).instrument(span).await;
    observed.answered(response.status());

    let headers = response.headers_mut();
    headers.reserve(8); // once, with room for what the connection adds
    headers.insert(REQUEST_ID, id.header());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(nothing);
    response
}

/// The pattern that a request's path matched.
struct Route(Option<MatchedPath>);

impl Route {
    fn as_str(&self) -> &str {
        self.0.as_ref().map_or("unmatched", MatchedPath::as_str)
    }
}

/// A request that is logged and counted at its end, also when that is a client that hangs up.
struct Observed {
    span: Span,
    method: &'static str,
    route: Route,
    /// Whether there is anybody to count for.
    is_counted: bool,
    started: Instant,
    status: u16,
}

impl Observed {
    /// nginx's word for a client that did not wait for its answer.
    const CLIENT_CLOSED_REQUEST: u16 = 499;

    fn new(span: Span, method: &'static str, route: Route, is_counted: bool) -> Self {
        metrics::gauge!(IN_FLIGHT).increment(1);
        let status = Self::CLIENT_CLOSED_REQUEST;
        Self { span, method, route, is_counted, started: Instant::now(), status }
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
        if !self.is_counted {
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
    let own = [
        "octopus-api-key",
        "authorization",
        "content-type",
        "x-request-id",
        "idempotency-key",
        "if-match",
        "last-event-id",
    ];
    let shown = [
        "x-request-id",
        "ratelimit",
        "ratelimit-policy",
        "octopus-api-key-expires",
        "idempotency-replayed",
    ];
    let shown = shown.map(HeaderName::from_static).into_iter().chain([ETAG, LINK, RETRY_AFTER]);
    let layer = CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(own.map(HeaderName::from_static))
        .expose_headers(shown.collect::<Vec<_>>())
        .max_age(PREFLIGHT_AGE);
    Some(layer)
}

/// Keeps a request within bounds: refuses heads that are too large or have no proper `Host`; gives
/// up a handler that takes too long; and takes in what a refused request still sends, so that its
/// client reads the answer.
pub async fn bound(State(app): State<AppState>, request: Request, next: Next) -> Response {
    if let Err(error) = head::check(&request) {
        return error.into_response();
    }
    let (mut request, remainder) = salvaged(request);
    let deadline = Deadline::new(app.config.limits.request_timeout);
    request.extensions_mut().insert(deadline.clone());
    let is_safe = request.method().is_safe();
    let mut response = tokio::select! {
        biased; // an answer that is there at once needs no timer
        response = detached(&app, request, next) => response,
        () = deadline.passed() => Error::TimedOut(if is_safe {
            "The request took too long"
        } else {
            "The request took too long; what it asked for may still have happened"
        }).into_response(),
    };
    let Some(remainder) = remainder else { return response };
    // What came too slowly goes on coming too slowly.
    let is_slow = response.status() == StatusCode::REQUEST_TIMEOUT;
    if is_slow || !remainder.throw_away().await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// `request`, and what may be left of its body, if it has one. A client that waits for "100
/// Continue" sends nothing after a refusal.
fn salvaged(request: Request) -> (Request, Option<Remainder>) {
    if request.body().is_end_stream() || request.headers().contains_key(EXPECT) {
        return (request, None);
    }
    let (parts, body) = request.into_parts();
    let (body, remainder) = salvage(body);
    (Request::from_parts(parts, body), Some(remainder))
}

/// Runs a request that may change something in a task of its own, which shutdown waits for: a
/// client that hangs up must not cut a write in half.
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

/// Who calls, and what is left of their limit, where there are limits.
enum Standing {
    Stranger,
    Key(Actor, Option<Allowance>),
    User(Option<Allowance>),
}

/// Finds out once who is calling, and leaves it on the request; counts the request in the bucket
/// that belongs to that, and how it went.
pub async fn authenticate(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let missing = || Error::Internal("a request that was not observed".into());
    let client = request.extensions().get::<Client>().copied().ok_or_else(missing)?;
    let id = request.extensions().get::<RequestId>().cloned().ok_or_else(missing)?;
    let used = Use { at: app.clock.now(), ip: Some(client.ip) };
    let known = Credentials { keys: &app.keys, db: &app.db, sessions: &app.config.sessions };
    let outcome = authenticate::authenticate(known, used.at, request.headers(), &client, id).await;
    let mut standing = Standing::Stranger;
    let caller = match outcome {
        Ok(Outcome::Good(actor)) => {
            Span::current().record("key_id", actor.key_id());
            let allowance = match app.throttle.key(actor.key(), &client) {
                Ok(allowance) => allowance,
                Err(limited) => {
                    app.usage.count(actor.key(), usage::Outcome::RateLimited, used.at);
                    let mut response = limited.into_response();
                    tell(actor.key(), None, &mut response);
                    return Ok(response);
                }
            };
            app.usage.note(actor.key(), used);
            if !request.method().is_safe() {
                request.extensions_mut().insert(recheck_after_body(&app, &actor));
            }
            standing = Standing::Key(actor.clone(), allowance);
            Caller::Known(actor)
        }
        Ok(Outcome::LoggedIn(user)) => {
            Span::current().record("user_id", user.user_id());
            standing = Standing::User(app.throttle.user(&user, &client)?);
            app.session_uses.note(&user, used.at);
            if !request.method().is_safe() {
                request.extensions_mut().insert(recheck_session_after_body(&app, &user));
            }
            Caller::LoggedIn(user)
        }
        Ok(Outcome::Elsewhere(key)) => {
            refuse(&app, ADDRESS_DENIED, Some(&key), &client);
            app.usage.count(&key, usage::Outcome::DeniedAddress, used.at);
            app.throttle.anonymous(&client)?;
            return Err(Error::Forbidden(ELSEWHERE.into()));
        }
        Ok(Outcome::Missing) => {
            if !shows_ticket(&request) {
                app.throttle.anonymous(&client)?;
            }
            Caller::Unknown(MISSING)
        }
        Ok(Outcome::Bad { why, reason, key }) => {
            refuse(&app, reason, key.as_ref().map(|(key, _)| &**key), &client);
            if let Some((key, Denial::Expired)) = key {
                app.usage.count(&key, usage::Outcome::Expired, used.at);
            }
            app.throttle.failure(&client)?;
            Caller::Unknown(why)
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
    match standing {
        Standing::Key(actor, allowance) => {
            let lacked_scope = response.extensions().get::<ScopeMissing>().is_some();
            let outcome =
                if lacked_scope { usage::Outcome::DeniedScope } else { usage::Outcome::Ok };
            app.usage.count(actor.key(), outcome, used.at);
            tell(actor.key(), allowance, &mut response);
        }
        Standing::User(Some(allowance)) => allowance.tell(response.headers_mut()),
        Standing::User(None) | Standing::Stranger => {}
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Whether its route finds out whose request it is, and counts it.
fn shows_ticket(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>();
    route.is_some_and(|route| route.as_str() == events::ROUTE)
        && events::shown_ticket(request.uri()).is_some()
}

/// What is asked once more when the body has arrived.
fn recheck_after_body(app: &AppState, actor: &Actor) -> Recheck {
    let (keys, clock, actor) = (app.keys.clone(), app.clock.clone(), actor.clone());
    Recheck::new(move || {
        let (keys, now, actor) = (keys.clone(), clock.now(), actor.clone());
        async move { recheck::unchanged(&keys, &actor, now).await }
    })
}

/// The same for somebody logged in.
fn recheck_session_after_body(app: &AppState, user: &LoggedIn) -> Recheck {
    let (app, user) = (app.clone(), user.clone());
    Recheck::new(move || {
        let (app, user) = (app.clone(), user.clone());
        async move {
            session::still_going_on(&app.db, &user, &app.config.sessions, app.clock.now()).await
        }
    })
}

/// Logs and counts a refused credential, for the metrics and for the audit trail.
fn refuse(app: &AppState, reason: &'static str, key: Option<&Key>, client: &Client) {
    authenticate::refused(reason, key, client);
    app.failures.note(client.ip, reason);
}

/// Tells the holder of a key what is left of its limit and, where another key took its place, how
/// long it still works.
fn tell(key: &Key, allowance: Option<Allowance>, response: &mut Response) {
    let headers = response.headers_mut();
    if let Some(allowance) = allowance {
        allowance.tell(headers);
    }
    if let Some(end) = key.grace_expires_at.and(key.ends_at())
        && let Ok(value) = HeaderValue::from_str(&end.to_rfc3339_opts(SecondsFormat::Micros, true))
    {
        headers.insert(KEY_EXPIRES, value);
    }
}
