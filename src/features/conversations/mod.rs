//! Conversations with participants and ordered messages.

pub mod events;
mod feature;
mod large;
pub mod model;
mod repository;
pub mod retention;
mod router;
pub mod search;
pub mod service;
mod stream;
mod transfer;

pub use feature::FEATURE;
