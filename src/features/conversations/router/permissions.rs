//! The permissions for conversations.

use crate::security::{Scope, permissions};

permissions! {
    pub(super) ReadConversations: Scope::ConversationsRead, "read conversations",
    pub(super) ChangeConversations: Scope::ConversationsWrite, "change conversations",
}
