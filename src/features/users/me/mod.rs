//! The current user: read, update and delete the signed-in user.

mod model;
pub mod router;
mod service;
