//! Password reset: an admin key issues a single-use token, with which the user sets a new password.

mod model;
mod repository;
pub mod router;
mod service;

pub use repository::{forget_expired, withdraw};
