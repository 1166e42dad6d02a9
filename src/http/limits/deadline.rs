//! Request deadlines: one timeout for the body to arrive, then one for the handler to respond.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longer than any request takes.
const NEVER: Duration = Duration::from_hours(24 * 365 * 10);

/// The time at which a request is cancelled. Stored in its extensions; clones share the deadline.
#[derive(Clone, Debug)]
pub struct Deadline {
    at: Arc<Mutex<Instant>>,
    timeout: Duration,
}

impl Deadline {
    /// Creates a deadline `timeout` from now.
    pub fn new(timeout: Duration) -> Self {
        Self { at: Arc::new(Mutex::new(Instant::now() + timeout)), timeout }
    }

    /// Runs `read`, which reads the body, for at most the timeout, and then restarts the
    /// timeout for the handler. Returns `None` if reading took too long.
    pub async fn while_reading<T>(&self, read: impl Future<Output = T>) -> Option<T> {
        let end = Instant::now() + self.timeout;
        self.set(end + self.timeout);
        let result = tokio::time::timeout_at(end, read).await.ok();
        self.set(Instant::now() + self.timeout);
        result
    }

    /// Removes the deadline; the body reader enforces its own.
    pub fn lift(&self) {
        self.set(Instant::now() + NEVER);
    }

    /// Completes when the deadline has passed, even if it moves in the meantime.
    pub async fn passed(&self) {
        loop {
            let at = self.get();
            if Instant::now() >= at {
                return;
            }
            tokio::time::sleep_until(at).await;
        }
    }

    fn get(&self) -> Instant {
        *self.at.lock()
    }

    fn set(&self, at: Instant) {
        *self.at.lock() = at;
    }
}
