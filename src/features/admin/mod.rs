//! What administrators see of the whole installation.

mod export;
mod repository;
pub mod router;
pub mod service;
