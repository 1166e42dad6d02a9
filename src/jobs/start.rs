//! Starts the background jobs.

use super::{
    back_up, deliver_webhooks, expire_keys, flush_usage, forget_old, index_messages,
    invalidate_keys, log_checkpoints, record_failures, relay_live, remove_old, watch_clock,
    watch_files,
};
use crate::state::AppState;
use tokio::task::JoinSet;
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
    jobs.spawn(watch_clock::run(app.clone(), stop.clone()));
    jobs.spawn(watch_files::run(app.clone(), stop.clone()));
    jobs
}
