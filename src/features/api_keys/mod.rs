//! API keys: made, shown, changed, rotated, switched off; and the trail of all that.

mod admission;
pub mod bootstrap;
pub mod model;
pub mod notices;
mod repository;
pub mod router;
pub mod service;
