//! API keys: create, list, update, rotate, deactivate, verify; and the audit log of key changes.

mod admission;
pub mod bootstrap;
pub mod model;
mod repository;
pub mod router;
pub mod service;
pub mod webhook_events;

pub use repository::{count_permanent_admins, lock_installation};
