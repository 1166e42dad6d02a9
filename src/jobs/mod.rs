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
mod schedule;
mod start;
mod watch_clock;
mod watch_files;

pub use start::start;
