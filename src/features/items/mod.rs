//! Items: the shortest complete feature, made to be copied.
//! docs/FEATURE_IMPLEMENTATION_GUIDE.md goes through it step by step.

pub mod model;
mod repository;
pub mod router;
pub mod service;
