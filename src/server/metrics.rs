//! Prometheus text on a listener of its own, so that it need not be reachable from outside.

use crate::core::metrics::{BUCKETS, POOL, QUEUE, WAL_BYTES};
use crate::core::telemetry;
use crate::state::AppState;
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use std::io;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Serves `/metrics` on `METRICS_ADDR`, if that is set, until `stop` is cancelled.
pub(super) async fn serve(
    app: AppState,
    stop: CancellationToken,
) -> io::Result<Option<JoinHandle<io::Result<()>>>> {
    let Some(address) = app.config.metrics_addr else { return Ok(None) };
    telemetry::metrics();
    metrics_process::Collector::default().describe();
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    tracing::info!(event = "metrics.listening", %address, "metrics at /metrics");
    let router = Router::new().route("/metrics", get(render)).with_state(app);
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    Ok(Some(tokio::spawn(serving.into_future())))
}

async fn render(State(app): State<AppState>) -> impl IntoResponse {
    let number = |n: usize| u32::try_from(n).map_or(f64::MAX, f64::from);
    for pool in app.db.pools() {
        metrics::gauge!(POOL, "pool" => pool.name, "state" => "idle").set(number(pool.idle));
        metrics::gauge!(POOL, "pool" => pool.name, "state" => "used").set(number(pool.used));
    }
    if let Some(bytes) = app.db.wal_bytes() {
        metrics::gauge!(WAL_BYTES).set(u32::try_from(bytes).map_or(f64::MAX, f64::from));
    }
    metrics::gauge!(QUEUE, "queue" => "last_used").set(number(app.last_used.len()));
    metrics::gauge!(QUEUE, "queue" => "passwords").set(number(app.passwords.queue()));
    metrics::gauge!(QUEUE, "queue" => "writes").set(number(app.tasks.len()));
    for (policy, callers) in app.throttle.sizes() {
        metrics::gauge!(BUCKETS, "policy" => policy).set(number(callers));
    }
    metrics_process::Collector::default().collect();
    let handle = telemetry::metrics();
    handle.run_upkeep();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render())
}
