//! Timeouts and size limits of the server.

use super::reader::Reader;
use std::time::Duration;

/// Timeouts and size limits of the server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Maximum size of a request body in bytes.
    pub body_bytes: usize,
    /// Timeout for receiving a request body, and again for the handler.
    pub request_timeout: Duration,
    /// Timeout for receiving the head of a request.
    pub header_timeout: Duration,
    /// Timeout for a connection that makes no progress.
    pub idle_timeout: Duration,
    /// How long shutdown waits for requests in flight.
    pub shutdown_grace: Duration,
    /// Maximum number of open connections.
    pub connections: usize,
    /// Maximum number of open connections per client address; `None` is a quarter of `connections`.
    pub client_connections: Option<usize>,
    /// Memory budget in bytes for large requests in flight and large responses not yet sent.
    pub memory_bytes: usize,
}

/// Reads `MAX_…`, `MEMORY_BUDGET_BYTES` and `…_SECONDS`.
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

/// Reads `MEMORY_BUDGET_BYTES`. The largest request must fit: a body counts four times its size.
fn memory_bytes(r: &mut Reader, body_bytes: usize) -> usize {
    const NAME: &str = "MEMORY_BUDGET_BYTES";
    const MINIMUM: usize = 64 * 1024 * 1024;
    let minimum = body_bytes.saturating_mul(4).max(MINIMUM);
    let bytes = r.parsed(NAME, 256 * 1024 * 1024, "a whole number of bytes");
    if r.text(NAME).is_none() {
        return bytes.max(minimum);
    }
    if bytes < minimum {
        r.problem(NAME, format_args!("must be at least {minimum} bytes"));
    }
    bytes
}
