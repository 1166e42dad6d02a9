//! Logging in and out, and the sessions in between.

pub mod model;
mod repository;
pub mod router;
pub mod service;
