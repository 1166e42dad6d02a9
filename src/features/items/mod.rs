//! Items: the shortest complete feature, a template for new ones.
//! docs/FEATURE_IMPLEMENTATION_GUIDE.md explains it step by step.

mod feature;
pub mod model;
mod repository;
pub mod router;
pub mod service;

pub use feature::FEATURE;
