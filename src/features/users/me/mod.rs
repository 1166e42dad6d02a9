//! What somebody logged in does with their own user.

mod model;
pub mod router;
mod service;
