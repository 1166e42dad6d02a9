//! The most expensive valid request of every operation gets a response and takes a bounded amount
//! of work. docs/RELIABILITY.md has the figures.

use super::{Callers, OperationOf};
use crate::support::{measured, scale};
use bytes::Bytes;
use std::time::Instant;

/// The processor seconds that one request may take. In an unoptimised build with concurrent tests,
/// only work that grows faster than the request exceeds it; the long form measures an optimised
/// build.
fn bound() -> f64 {
    scale(60.0, 15.0)
}

/// The seconds until the response: the default request timeout. A batch of 16 MiB takes half of it
/// where Postgres indexes its messages, in a process of Postgres.
fn patience() -> f64 {
    scale(60.0, 30.0)
}

/// Sends the most expensive request of each operation, in the order of the list.
///
/// # Panics
/// If a request fails, or takes too long or too much processor time.
pub async fn check_worst_requests<W: AsRef<Callers> + 'static>(
    world: &W,
    operations: impl IntoIterator<Item = &'static OperationOf<W>>,
) {
    let server = &world.as_ref().server;
    for operation in operations {
        let place = operation.name();
        server.reset_peak();
        let (cpu, started, before) = (server.processor(), Instant::now(), server.resident());
        let (status, answer) = send_worst(world, operation).await;
        let bytes = answer.len();
        let (cpu, took) = (server.processor() - cpu, started.elapsed().as_secs_f64());
        let text = || String::from_utf8_lossy(&answer[..bytes.min(500)]).into_owned();
        let is_good = (200..400).contains(&status) || operation.may_fail;
        assert!(is_good, "{place}: {status} {}", text());
        assert!(cpu < bound() && took < patience(), "{place} took {took} s, {cpu} s of them busy");
        let peak = server.peak().saturating_sub(before) / 1024;
        measured(&format!(
            "{place}: {:.0} ms CPU, {:.0} ms until the answer, {peak} MiB, {} kB answer",
            cpu * 1e3,
            took * 1e3,
            bytes / 1000
        ));
    }
}

/// The status and the body of the response to the most expensive request of `operation`.
pub async fn send_worst<W>(world: &W, operation: &OperationOf<W>) -> (u16, Bytes) {
    let response = (operation.worst)(world).open().await;
    let status = response.status().as_u16();
    if operation.path.ends_with("/events") {
        return (status, Bytes::new()); // It does not end.
    }
    (status, response.bytes().await.expect("the answer arrives whole"))
}
