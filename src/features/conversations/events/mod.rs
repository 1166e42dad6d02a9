//! Event streams: reports changes of a conversation as server-sent events.

mod model;
mod repository;
mod router;
mod service;
mod stream;
mod subscriber;

pub(super) use router::routes;
pub use service::forget_old;
pub use subscriber::{ROUTE, ticket_in_query};

use crate::security::{Scope, permissions};

permissions! {
    SubscribeToConversations: Scope::ConversationsRead, "subscribe to conversations",
}
