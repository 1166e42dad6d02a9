//! How long a request may take: first its body to arrive, then its handler to answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Longer than any request.
const NEVER: Duration = Duration::from_hours(24 * 365 * 10);

/// The moment a request is given up; in its extensions. A clone moves the same deadline.
#[derive(Clone, Debug)]
pub struct Deadline {
    at: Arc<Mutex<Instant>>,
    allowance: Duration,
}

impl Deadline {
    /// `allowance` from now.
    pub fn new(allowance: Duration) -> Self {
        Self { at: Arc::new(Mutex::new(Instant::now() + allowance)), allowance }
    }

    /// Runs `read`, which takes in the body, for at most the allowance (`None` when that was not
    /// enough), and then gives the handler its own.
    pub async fn while_reading<T>(&self, read: impl Future<Output = T>) -> Option<T> {
        let end = Instant::now() + self.allowance;
        self.set(end + self.allowance);
        let result = tokio::time::timeout_at(end, read).await.ok();
        self.set(Instant::now() + self.allowance);
        result
    }

    /// Lets the request take as long as it likes: what it reads has an end of its own.
    pub fn lift(&self) {
        self.set(Instant::now() + NEVER);
    }

    /// Comes back when the deadline, wherever it has moved to, is past.
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
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: Instant) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}
