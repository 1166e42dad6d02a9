//! Password reset: an admin key issues a single-use token, with which the user sets a new password.

mod model;
pub(super) mod repository;
pub mod router;
mod service;
