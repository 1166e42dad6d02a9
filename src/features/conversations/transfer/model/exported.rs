//! The lines of an export.

use crate::core::clock::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

/// A user in an export, named by username and email, which are the same in every installation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Person {
    /// Username.
    pub username: String,
    /// Email address, if the caller may see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// A line of an export.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Exported {
    /// The user whose conversations follow.
    User(ExportedUser),
    /// A conversation; its messages follow.
    Conversation(ExportedConversation),
    /// More participants of the preceding conversation.
    Participants {
        /// Sorted by username.
        participants: Vec<Person>,
    },
    /// The next message of the preceding conversation.
    Message(ExportedMessage),
}

/// The line of a user.
#[derive(Debug, Serialize, sqlx::FromRow)]
pub struct ExportedUser {
    pub username: String,
    pub email: String,
    pub full_name: Option<String>,
    pub is_active: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The line of a conversation.
#[derive(Debug, Serialize)]
pub struct ExportedConversation {
    pub external_id: String,
    pub title: Option<String>,
    pub metadata: Option<Box<RawValue>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Sorted by username. If there are too many for one line, `participants` lines follow.
    pub participants: Vec<Person>,
    /// Number of messages that follow.
    pub message_count: i64,
}

/// The line of a message.
#[derive(Debug, Serialize)]
pub struct ExportedMessage {
    pub role: String,
    pub content: String,
    pub user: Option<Person>,
    pub metadata: Option<Box<RawValue>>,
    pub created_at: Timestamp,
    pub edited_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
}
