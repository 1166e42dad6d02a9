//! Forgotten passwords: an administrator gives out a token, which sets a new one, once.

mod model;
mod repository;
pub mod router;
mod service;

pub use repository::{forget_expired, withdraw};
