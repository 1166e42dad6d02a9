//! Runs the interface on a socket: connections, deadlines, background jobs, and a clean end.

mod connection;
mod files;
mod metrics;

use crate::state::AppState;
use crate::{api, jobs};
use axum_server::Handle;
use connection::Gate;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// hyper answers larger heads itself, without JSON; ours are refused below that.
const HYPER_MAX_FIELDS: usize = 256;
const HYPER_BUFFER_BYTES: usize = 64 * 1024;
/// Connections that the system makes before the server takes them; it allows fewer where
/// `net.core.somaxconn` says so. Past them, clients wait a second before they try again, and some
/// believe that they are connected.
const BACKLOG: i32 = 4096;
/// Time for the last flush and for closing the database.
const CLOSING: Duration = Duration::from_secs(5);

/// Why a server stopped that should not have.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The sockets failed.
    #[error("the server's socket failed: {0}")]
    Socket(#[from] io::Error),
    /// A background job ended, which it never should.
    #[error("a background job crashed")]
    Job,
}

/// Listens on `address`, also for many clients that come at the same moment.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // Once more: the standard library waits for 128.
    socket2::SockRef::from(&listener).listen(BACKLOG)?;
    Ok(listener)
}

/// Serves `app` on `listener` until `shutdown` comes back; then takes no new connections, lets
/// requests in flight go on for at most `SHUTDOWN_GRACE_SECONDS`, and writes what waits in memory.
pub async fn run(
    listener: TcpListener,
    app: AppState,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let limits = &app.config.limits;
    let handle = Handle::<SocketAddr>::new();
    let connections = files::connections(limits.connections);
    let of_client = limits.client_connections.unwrap_or_else(|| share_of_client(connections));
    let trusted = app.config.trusted_proxies.clone();
    let gate = Gate::new(connections, of_client, trusted, limits.idle_timeout);
    let mut server = axum_server::from_tcp(listener)?.http1_only().handle(handle.clone());
    server
        .http_builder()
        .http1()
        .header_read_timeout(limits.header_timeout)
        .max_headers(HYPER_MAX_FIELDS)
        .max_buf_size(HYPER_BUFFER_BYTES);
    let service = api::app(&app).into_make_service_with_connect_info::<SocketAddr>();
    let serving = server.acceptor(gate).serve(service);
    tokio::pin!(serving);

    let stop_jobs = CancellationToken::new();
    // Before the jobs, which count from the first moment on.
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
    // Writes whose clients are gone run in tasks of their own.
    app.tasks.close();
    if timeout_at(end, app.tasks.wait()).await.is_err() {
        let left = app.tasks.len();
        tracing::warn!(event = "server.cut_off", left, "requests were still at work");
    }
    stop_jobs.cancel();
    let closing = async {
        while jobs.join_next().await.is_some() {}
        app.db.close().await;
    };
    if timeout_at(Instant::now() + CLOSING, closing).await.is_err() {
        tracing::warn!(event = "server.close_timeout", "the database did not close in time");
    }
    tracing::info!(event = "server.stopped", "bye");
    outcome
}

/// How many of all `connections` one client may have, unless configured: a quarter, so that none can
/// take them all, but enough for a browser.
fn share_of_client(connections: usize) -> usize {
    (connections / 4).max(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn hundreds_of_clients_connect_before_any_is_served() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(20)).unwrap();
        let began = Instant::now();
        let clients: Vec<TcpStream> = (0..400).map(connect).collect();
        assert!(clients.len() == 400 && began.elapsed() < Duration::from_secs(1), "some waited");
    }
}
