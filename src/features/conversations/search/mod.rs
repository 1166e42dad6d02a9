//! Finds messages by the words in them, however they are written: large or small, with blanks
//! between words or, as in Japanese, without. How, and at what price: docs/SEARCH.md.

mod index;
pub mod model;
mod older;
mod phrases;
mod repository;
pub mod router;
pub mod service;
mod snippet;
mod words;

pub use index::{Part as IndexPart, catch_up, index_part, keep_up, keep_up_after};
