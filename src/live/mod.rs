//! Notifies subscribers of a topic that something changed. Subscribers read the change itself from
//! the database.

mod outgoing;
mod registry;
pub mod relay;
mod slots;

pub use registry::{Live, Subscription};
pub use slots::StreamSlot;
