//! Administration: installation statistics, audit log verification and export.

mod export;
mod feature;
mod model;
mod repository;
mod router;
pub mod service;

pub use feature::FEATURE;
