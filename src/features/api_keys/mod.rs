//! API keys: create, list, update, rotate, deactivate, verify; and the audit log of key changes.

mod admission;
pub mod bootstrap;
mod feature;
pub mod model;
mod repository;
mod router;
pub mod service;
pub mod webhook_events;

pub use feature::FEATURE;
pub use repository::{count_permanent_admins, lock_installation};
