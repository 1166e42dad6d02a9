//! Sign-in, sign-out and session management.

pub mod model;
pub(super) mod repository;
pub mod router;
pub mod service;
