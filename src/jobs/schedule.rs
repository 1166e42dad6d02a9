//! The timer of a job.

use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;

/// Fires at regular intervals until the server stops.
pub(super) struct Schedule {
    ticks: Interval,
    stop: CancellationToken,
}

impl Schedule {
    /// Fires immediately and then every `period`, until `stop` is cancelled.
    pub(super) fn every(period: Duration, stop: CancellationToken) -> Self {
        Self::new(interval(period), stop)
    }

    /// Like [`Self::every`], but fires for the first time after one `period`.
    pub(super) fn after_every(period: Duration, stop: CancellationToken) -> Self {
        Self::new(interval_at(Instant::now() + period, period), stop)
    }

    fn new(mut ticks: Interval, stop: CancellationToken) -> Self {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, stop }
    }

    /// Waits until the timer fires. Returns `false` once `stop` is cancelled.
    pub(super) async fn due(&mut self) -> bool {
        self.stop.run_until_cancelled(self.ticks.tick()).await.is_some()
    }
}
