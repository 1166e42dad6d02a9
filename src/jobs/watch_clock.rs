//! Logs jumps of the system clock. The server continues with the new time: the order of messages and
//! audit entries does not depend on times, and rows from a clock that was ahead do not block jobs.

use super::schedule::Schedule;
use crate::core::clock::JumpDetector;
use crate::state::AppState;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(10);

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::after_every(PERIOD, stop);
    let mut detector = JumpDetector::new(app.clock.now(), Instant::now());
    while schedule.due().await {
        if let Some(jump) = detector.observe(app.clock.now(), Instant::now()) {
            tracing::warn!(
                event = "clock.jumped",
                seconds = jump.num_seconds(),
                "the system clock was set, or the machine was suspended"
            );
        }
    }
}
