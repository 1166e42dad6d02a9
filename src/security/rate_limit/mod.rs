//! Rate limits, with one policy for each kind of caller.
//!
//! `limiter` counts the requests of callers, and `client` those of clients in their networks; both
//! are called where the caller is known. `key_creation` is a layer of one route, from the crate
//! tower_governor; such a layer can neither refund a request nor bound its memory, so the other
//! limits do not use one.

mod account;
mod attempts;
mod client;
mod key_creation;
mod limiter;
mod refusal;
mod throttle;

pub use account::Account;
pub use attempts::Attempt;
pub use key_creation::{ByKey, KeyCreationLayer};
pub use limiter::RemainingQuota;
pub use throttle::Throttle;
