//! Conversation operations.

pub(super) mod assembly;
pub(super) mod commit;
mod conversations;
pub mod messages;
pub mod participants;
pub(super) mod parts;
mod quota;

pub use conversations::{
    create, delete, get, get_changed, get_created, get_id, list, list_of_user, update,
};
