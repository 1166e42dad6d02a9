//! The middleware around the handlers, one file each. `api/mod.rs` puts it in order.

pub mod authenticate;
pub mod bound;
pub mod compression;
pub mod conditional;
pub mod cors;
pub mod forms;
mod head;
pub mod memory;
pub mod observe;
pub mod panic;
pub mod parameters;
