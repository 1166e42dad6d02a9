//! What administrators see of the whole installation.

mod repository;
pub mod router;
pub mod service;
