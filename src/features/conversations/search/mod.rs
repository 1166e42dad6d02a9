//! Full-text search of messages, in any case and in scripts without spaces between words, such as
//! Japanese. docs/SEARCH.md describes the algorithm and its cost.

mod batch_size;
mod index;
mod index_search;
pub mod model;
mod phrases;
mod repository;
pub mod router;
pub mod service;
mod snippet;
mod words;

pub use batch_size::BatchSize;
pub use index::{catch_up, index_backlog, index_backlog_after, index_part};
