//! What Octopus does, one folder a feature. `items` is the one to copy.

pub mod admin;
pub mod api_keys;
pub mod conversations;
pub mod items;
pub mod users;
