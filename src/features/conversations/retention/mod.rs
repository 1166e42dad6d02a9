//! Removes conversations without recent messages (`RETENTION_DAYS`).
//!
//! A short conversation is removed in one transaction. A long one is retired first: it is marked
//! and becomes inaccessible. Then its rows are removed in batches, so that other writers can run in
//! between. If the process stops, another process or the next start removes the rest.

mod repository;
mod service;

pub use service::{Removed, Retention};
