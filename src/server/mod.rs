//! The HTTP server: listens, limits connections, runs background jobs and shuts down.

mod connection;
mod files;
mod metrics;
mod process_metrics;

use crate::state::AppState;
use crate::{api, jobs};
use axum_server::{Handle, Server};
use connection::{ConnectionLimiter, PacedListener, Peer};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// hyper rejects larger request heads itself, without JSON. The limits of the API are lower, so
/// that clients get a JSON error.
const HYPER_MAX_FIELDS: usize = 256;
const HYPER_BUFFER_BYTES: usize = 64 * 1024;
/// Length of the queue of connections that the server has not accepted yet. `net.core.somaxconn`
/// may lower it. When the queue is full, clients retry after a second, and some treat the
/// connection as established.
const BACKLOG: i32 = 4096;
/// Time limit for the final flush and for closing the database.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the server stopped unexpectedly.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A socket failed.
    #[error("the server's socket failed: {0}")]
    Socket(#[from] io::Error),
    /// A background job ended; jobs should run until shutdown.
    #[error("a background job crashed")]
    Job,
}

/// Listens on `address`, with a backlog that is large enough for bursts of connections.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // Call listen again: the standard library uses a backlog of 128.
    socket2::SockRef::from(&listener).listen(BACKLOG)?;
    Ok(listener)
}

/// Serves `app` on `listener` until `shutdown` completes. Then accepts no new connections, drains
/// requests in flight for at most `SHUTDOWN_GRACE_SECONDS`, and writes pending data.
pub async fn run(
    listener: TcpListener,
    app: AppState,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let limits = &app.config.limits;
    let handle = Handle::<Peer>::new();
    let connections = files::connections(limits.connections);
    let of_client = limits.client_connections.unwrap_or_else(|| share_of_client(connections));
    let trusted = app.config.trusted_proxies.clone();
    let limiter = ConnectionLimiter::new(connections, of_client, trusted, limits.idle_timeout);
    let listener = PacedListener::new(listener)?;
    let mut server = Server::<Peer>::from_listener(listener).http1_only().handle(handle.clone());
    server
        .http_builder()
        .http1()
        .header_read_timeout(limits.header_timeout)
        .max_headers(HYPER_MAX_FIELDS)
        .max_buf_size(HYPER_BUFFER_BYTES);
    let service = api::app(&app).into_make_service_with_connect_info::<SocketAddr>();
    let serving = server.acceptor(limiter).serve(service);
    tokio::pin!(serving);

    let stop_jobs = CancellationToken::new();
    // Before the jobs, which record metrics as soon as they start.
    metrics::serve(app.clone(), stop_jobs.clone())?;
    let mut jobs = jobs::start(&app, &stop_jobs);

    let outcome = tokio::select! {
        result = &mut serving => result.map_err(ServerError::from),
        _ = jobs.join_next() => Err(ServerError::Job),
        () = shutdown => Ok(()),
    };
    tracing::info!(event = "server.stopping", "finishing requests in flight");
    let end = Instant::now() + limits.shutdown_grace;
    app.stopping.cancel();
    if outcome.is_ok() {
        handle.graceful_shutdown(Some(limits.shutdown_grace));
        serving.await?;
    }
    // Writes run in separate tasks, which continue after the client has disconnected.
    app.tasks.close();
    if timeout_at(end, app.tasks.wait()).await.is_err() {
        let left = app.tasks.len();
        tracing::warn!(event = "server.requests_aborted", left, "requests were still in flight");
    }
    stop_jobs.cancel();
    let closing = async {
        while jobs.join_next().await.is_some() {}
        app.db.close().await;
    };
    if timeout_at(Instant::now() + CLOSE_TIMEOUT, closing).await.is_err() {
        tracing::warn!(event = "server.close_timeout", "the database did not close in time");
    }
    tracing::info!(event = "server.stopped", "the server has stopped");
    outcome
}

/// Default limit per client of the total `connections`: a quarter, so that no client can take all
/// of them, but at least enough for a browser.
fn share_of_client(connections: usize) -> usize {
    (connections / 4).max(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn hundreds_of_clients_connect_before_the_server_accepts_any() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(20)).unwrap();
        let began = Instant::now();
        let clients: Vec<TcpStream> = (0..400).map(connect).collect();
        assert!(clients.len() == 400 && began.elapsed() < Duration::from_secs(1), "some waited");
    }
}
