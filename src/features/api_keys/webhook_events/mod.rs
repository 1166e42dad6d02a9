//! Webhook events for API keys that expire soon.

mod repository;
mod service;

pub use service::announce_expiring;
