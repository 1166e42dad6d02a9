//! Webhooks: notify another server of API key events. An event is stored in the transaction that
//! causes it and delivered after the commit: at least once, by one process at a time.
//! docs/WEBHOOKS.md is the documentation for receivers.

mod backoff;
mod deliver;
mod event;
mod outbox;
mod receiver;
mod repository;

pub use deliver::{DeliverError, Deliverer};
pub use event::Event;
pub use outbox::Webhooks;
