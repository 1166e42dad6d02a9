//! Users: registered, shown, changed, removed.

pub mod model;
mod repository;
pub mod router;
pub mod service;
