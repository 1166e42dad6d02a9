//! Users: register, read, update, delete; sign-in, sessions and password reset.

mod credentials;
mod feature;
mod me;
pub mod model;
mod names;
mod password_reset;
mod repository;
mod retention;
mod router;
pub mod service;
mod sessions;

pub use feature::FEATURE;
pub use retention::forget_old;
