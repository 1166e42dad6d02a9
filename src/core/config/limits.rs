//! Deadlines and bounds of the server.

use super::reader::Reader;
use std::time::Duration;

/// Deadlines and bounds of the server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request body in bytes.
    pub body_bytes: usize,
    /// How long a body may take to arrive, and then a handler to answer.
    pub request_timeout: Duration,
    /// How long a connection may take to send a request's head.
    pub header_timeout: Duration,
    /// How long a connection may make no progress.
    pub idle_timeout: Duration,
    /// How long requests in flight may go on after a signal to stop.
    pub shutdown_grace: Duration,
    /// Most connections open at once.
    pub connections: usize,
    /// Most of them from one client address; `None` is a quarter.
    pub client_connections: Option<usize>,
    /// Bytes of memory for large requests in flight and large answers that are not sent yet.
    pub memory_bytes: usize,
}

/// `MAX_…`, `MEMORY_BUDGET_BYTES` and `…_SECONDS`.
pub(super) fn read(r: &mut Reader) -> Limits {
    let body_bytes = r.parsed("MAX_BODY_BYTES", 2_097_152, "a whole number of bytes");
    if body_bytes == 0 {
        r.problem("MAX_BODY_BYTES", "must be at least 1");
    }
    let connections = r.parsed("MAX_CONNECTIONS", 10_000, "a whole number");
    if connections == 0 {
        r.problem("MAX_CONNECTIONS", "must be at least 1");
    }
    let client_connections = r
        .text("MAX_CONNECTIONS_PER_CLIENT")
        .is_some()
        .then(|| r.parsed("MAX_CONNECTIONS_PER_CLIENT", 2500, "a whole number"));
    if client_connections == Some(0) {
        r.problem("MAX_CONNECTIONS_PER_CLIENT", "must be at least 1");
    }
    Limits {
        client_connections,
        memory_bytes: memory_bytes(r, body_bytes),
        body_bytes,
        request_timeout: r.seconds("REQUEST_TIMEOUT_SECONDS", 30),
        header_timeout: r.seconds("HEADER_TIMEOUT_SECONDS", 10),
        idle_timeout: r.seconds("IDLE_TIMEOUT_SECONDS", 30),
        shutdown_grace: r.seconds("SHUTDOWN_GRACE_SECONDS", 8),
        connections,
    }
}

/// The largest request must fit: a body takes four times its size.
fn memory_bytes(r: &mut Reader, body_bytes: usize) -> usize {
    const NAME: &str = "MEMORY_BUDGET_BYTES";
    const LEAST: usize = 64 * 1024 * 1024;
    let least = body_bytes.saturating_mul(4).max(LEAST);
    let bytes = r.parsed(NAME, 256 * 1024 * 1024, "a whole number of bytes");
    if r.text(NAME).is_none() {
        return bytes.max(least);
    }
    if bytes < least {
        r.problem(NAME, format_args!("must be at least {least}: four times the largest body"));
    }
    bytes
}
