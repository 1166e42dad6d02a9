//! Moves conversations between installations: out as lines of JSON, and in again.

mod export;
mod model;
mod repository;
mod router;

pub(super) use router::routes;
pub use router::user_routes;
