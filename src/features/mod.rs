//! The features, one module each. Copy `items` to start a new one.

pub mod admin;
pub mod api_keys;
pub mod conversations;
pub mod items;
pub mod users;
