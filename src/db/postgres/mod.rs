//! The Postgres back end: connections and notifications.

pub(super) mod begin;
mod channel;
pub(super) mod connect;
mod migrate;
pub(super) mod notify;
pub(super) mod watch;
