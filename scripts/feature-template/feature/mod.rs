//! @The things@: create, read, change and delete.

mod feature;
pub mod model;
mod repository;
mod router;
pub mod service;

pub use feature::FEATURE;
