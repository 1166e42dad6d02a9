//! Request ids, client addresses, the base of URLs, access logs and metrics.

use crate::core::metrics::{IN_FLIGHT, LATENCY, REQUESTS};
use crate::http::{Client, REQUEST_ID, RequestId, UrlBase, is_trusted};
use crate::state::AppState;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use tracing::{Instrument, Span, field};

/// Assigns the request id, determines the client's address and the base of URLs, and logs and
/// measures the response. The outermost middleware.
pub async fn observe(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers().get(REQUEST_ID));
    let peer = peer(&request);
    let client = Client::of(peer, request.headers(), &app.config.trusted_proxies);
    let base = url_base(&app, peer, &request);
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
    request.extensions_mut().insert(base);
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

fn peer(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or([0, 0, 0, 0].into(), |peer| peer.0.ip())
}

fn url_base(app: &AppState, peer: IpAddr, request: &Request) -> UrlBase {
    let from_trusted_proxy = is_trusted(peer, &app.config.trusted_proxies);
    UrlBase::of(app.config.public_url.as_ref(), request.headers(), from_trusted_proxy)
}
