//! Administration: installation statistics, audit log verification and export.

mod export;
mod model;
mod repository;
pub mod router;
pub mod service;
