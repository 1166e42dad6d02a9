//! A time limit for each test.

use super::scale;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, Builder};
use std::time::Duration;

/// Several times as long as the slowest test takes on a busy machine with two cores.
const SHORT: Duration = Duration::from_mins(5);
/// The longest form of a test runs for hours.
const LONG: Duration = Duration::from_hours(12);

/// Runs `test` in a separate thread, and panics if it has not ended within the time limit. The
/// thread then runs until the process ends, because Rust cannot stop it.
pub fn within_limit(test: impl FnOnce() + Send + 'static) {
    // `reqwest::Client` panics without a TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (ended, end) = channel();
    let name = thread::current().name().unwrap_or("test").to_owned();
    let run = move || {
        test();
        // This fails after the time limit, when nothing receives it.
        let _ = ended.send(());
    };
    let thread = Builder::new().name(name).spawn(run).expect("a thread starts");
    let limit = scale(SHORT, LONG);
    let is_over = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
    assert!(!is_over, "the test did not end within {limit:?}");
    thread.join().unwrap_or_else(|panic| resume_unwind(panic));
}
