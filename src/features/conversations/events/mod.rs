//! Event streams: reports changes of a conversation as server-sent events.

mod model;
mod permissions;
mod repository;
mod router;
mod service;
mod stream;
mod subscriber;

pub(super) use router::routes;
pub use service::forget_old;
