//! Users: register, read, update, delete; sign-in, sessions and password reset.

mod me;
pub mod model;
mod names;
mod password_reset;
mod repository;
pub mod router;
pub mod service;
mod sessions;

pub use sessions::service::forget_old;
