//! Moves conversations between installations: out as lines of JSON, and in again.

mod export;
mod import;
mod model;
mod repository;
mod router;
mod spool;
mod writer;

pub(super) use router::routes;
pub use router::user_routes;
