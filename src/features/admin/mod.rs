//! Administration: installation statistics, audit log verification and export.

mod export;
mod repository;
pub mod router;
pub mod service;
