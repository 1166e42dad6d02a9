//! Background jobs of the server. Each job stops when its token is cancelled. A job that crashes
//! stops the server.

mod back_up;
mod deliver_webhooks;
mod expire_keys;
mod flush_usage;
mod forget_old;
mod index_messages;
mod invalidate_keys;
mod log_checkpoints;
mod record_failures;
mod relay_live;
mod remove_old;

use crate::state::AppState;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;

/// Starts every job. After `stop` is cancelled, each job finishes its work and returns.
pub fn start(app: &AppState, stop: &CancellationToken) -> JoinSet<()> {
    let mut jobs = JoinSet::new();
    jobs.spawn(back_up::run(app.clone(), stop.clone()));
    jobs.spawn(deliver_webhooks::run(app.clone(), stop.clone()));
    jobs.spawn(expire_keys::run(app.clone(), stop.clone()));
    jobs.spawn(flush_usage::run(app.clone(), stop.clone()));
    jobs.spawn(forget_old::run(app.clone(), stop.clone()));
    jobs.spawn(index_messages::run(app.clone(), stop.clone()));
    jobs.spawn(log_checkpoints::run(app.clone(), stop.clone()));
    jobs.spawn(record_failures::run(app.clone(), stop.clone()));
    jobs.spawn(relay_live::run(app.clone(), stop.clone()));
    jobs.spawn(remove_old::run(app.clone(), stop.clone()));
    jobs.spawn(invalidate_keys::run(app.clone(), stop.clone()));
    jobs
}

/// The timer of a job.
struct Schedule {
    ticks: Interval,
    stop: CancellationToken,
}

impl Schedule {
    /// Fires immediately and then every `period`, until `stop` is cancelled.
    fn every(period: Duration, stop: CancellationToken) -> Self {
        Self::new(interval(period), stop)
    }

    /// Like [`Self::every`], but fires for the first time after one `period`.
    fn after_every(period: Duration, stop: CancellationToken) -> Self {
        Self::new(interval_at(Instant::now() + period, period), stop)
    }

    fn new(mut ticks: Interval, stop: CancellationToken) -> Self {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, stop }
    }

    /// Waits until the timer fires. Returns `false` once `stop` is cancelled.
    async fn due(&mut self) -> bool {
        self.stop.run_until_cancelled(self.ticks.tick()).await.is_some()
    }
}
