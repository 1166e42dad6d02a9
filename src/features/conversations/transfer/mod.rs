//! Export and import of conversations as newline-delimited JSON.

mod export;
mod import;
mod model;
mod repository;
mod router;
mod spool;
mod writer;

pub(super) use router::{routes, user_routes};
