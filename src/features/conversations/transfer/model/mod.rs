//! The lines that conversations are moved as. `docs/MOVING_DATA.md` describes them.

mod imported;

pub use imported::{
    ConversationLine, ImportOptions, ImportReport, ImportedConversation, ImportedMessage, Match,
    MessageLine, Part, ParticipantsLine, People, REPORTED, Sought,
};

use crate::core::clock::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

/// Somebody, by what they are called in every installation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Person {
    /// Their name.
    pub username: String,
    /// Their email, if whoever reads this may see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// A line of an export.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Exported {
    /// Whose conversations follow.
    User(ExportedUser),
    /// A conversation; its messages follow.
    Conversation(ExportedConversation),
    /// More people who take part in the conversation before.
    Participants {
        /// By name.
        participants: Vec<Person>,
    },
    /// The next message of the conversation before.
    Message(ExportedMessage),
}

/// A user.
#[derive(Debug, Serialize, sqlx::FromRow)]
pub struct ExportedUser {
    pub username: String,
    pub email: String,
    pub full_name: Option<String>,
    pub is_active: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A conversation.
#[derive(Debug, Serialize)]
pub struct ExportedConversation {
    pub external_id: String,
    pub title: Option<String>,
    pub metadata: Option<Box<RawValue>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// By name: the first of them, where there are very many.
    pub participants: Vec<Person>,
    /// How many messages follow.
    pub message_count: i64,
}

/// A message.
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
