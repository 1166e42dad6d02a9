//! Users: registered, shown, changed, removed; logged in.

mod me;
pub mod model;
mod names;
mod password_reset;
mod repository;
pub mod router;
pub mod service;
mod sessions;

pub use sessions::service::forget_old;
