//! What happens in a conversation, told while it happens, as server-sent events.

mod model;
mod repository;
mod router;
mod service;
mod stream;
mod watcher;

pub(super) use router::routes;
pub use service::forget_old;
pub use watcher::{ROUTE, shown_ticket};

use crate::security::{Scope, permissions};

permissions! {
    WatchConversations: Scope::ConversationsRead, "watch conversations",
}
