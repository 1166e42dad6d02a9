//! Items: the demo feature. `scripts/new-feature` creates others, and `scripts/remove-feature items`
//! removes it.

mod feature;
pub mod model;
mod repository;
mod router;
pub mod service;

pub use feature::FEATURE;
