//! The permission for event streams.

use crate::security::{Scope, permissions};

permissions! {
    pub(super) SubscribeToConversations: Scope::ConversationsRead, "subscribe to conversations",
}
