//! Sign-in, sign-out and session management.

pub mod model;
mod repository;
pub mod router;
pub mod service;
