//! Serves Prometheus metrics on a separate listener, which does not have to be public.

use super::process_metrics;
use crate::core::metrics::{BUCKETS, CACHED_KEYS, MEMORY_USED, POOL, QUEUE, WAL_BYTES};
use crate::core::telemetry;
use crate::state::AppState;
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use std::io;
use std::net::TcpListener;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time limit for a scraper to send its request headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the recorder compacts its samples, which would otherwise grow until the next scrape.
const UPKEEP: Duration = Duration::from_secs(5);

/// Serves `/metrics` on `METRICS_ADDR`, if that is set, until `stop` is cancelled.
pub(super) fn serve(app: AppState, stop: CancellationToken) -> io::Result<()> {
    let Some(address) = app.config.metrics_addr else { return Ok(()) };
    let handle = telemetry::metrics();
    process_metrics::describe();
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    tracing::info!(event = "metrics.listening", %address, "serving metrics at /metrics");
    let router = Router::new().route("/metrics", get(render)).route("/metrics/", get(render));
    let router = router.with_state(app);
    let mut server = axum_server::from_tcp(listener)?.http1_only();
    server.http_builder().http1().header_read_timeout(HEADER_TIMEOUT);
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        if let Err(error) = server.serve(router.into_make_service()).await {
            tracing::error!(event = "metrics.failed", %error, "the metrics server stopped");
        }
    }));
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            handle.run_upkeep();
        }
    }));
    Ok(())
}

async fn render(State(app): State<AppState>) -> impl IntoResponse {
    let number = |n: usize| exact(n as u64);
    for pool in app.db.pools() {
        metrics::gauge!(POOL, "pool" => pool.name, "state" => "idle").set(number(pool.idle));
        metrics::gauge!(POOL, "pool" => pool.name, "state" => "used").set(number(pool.used));
    }
    if let Some(bytes) = app.db.wal_bytes() {
        metrics::gauge!(WAL_BYTES).set(exact(bytes));
    }
    metrics::gauge!(QUEUE, "queue" => "usage").set(number(app.usage.len()));
    metrics::gauge!(QUEUE, "queue" => "passwords").set(number(app.passwords.queue()));
    metrics::gauge!(QUEUE, "queue" => "webhooks").set(number(app.webhooks.queue()));
    metrics::gauge!(QUEUE, "queue" => "writes").set(number(app.tasks.len()));
    metrics::gauge!(MEMORY_USED).set(number(app.memory.used()));
    metrics::gauge!(CACHED_KEYS).set(exact(app.keys.len()));
    for (policy, callers) in app.throttle.sizes() {
        metrics::gauge!(BUCKETS, "policy" => policy).set(number(callers));
    }
    process_metrics::collect();
    let handle = telemetry::metrics();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render())
}

/// Converts `n` to a float. Exact up to 2⁵³, which no metric here exceeds.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn exact(n: u64) -> f64 {
    n as f64
}
