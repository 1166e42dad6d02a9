//! Conversation types: requests, responses and validation.

mod conversation;
mod json_text;
mod list;
mod message;
mod metadata;
mod name;
mod participant;
mod positive;
mod user_names;

pub use conversation::{
    Conversation, ConversationChanges, ConversationId, CreateConversation, CreatedConversation,
    MetadataChange, NewConversation, PatchConversation, UpdateConversation,
};
pub use json_text::JsonText;
pub use list::{ConversationOrder, ListedMessages, ShownMessages};
pub use message::{
    CreateMessage, CreateMessages, EditMessage, Message, MessageChanges, NewMessage, ROLES,
};
pub use metadata::{Metadata, MetadataPatch};
pub use name::{LookupName, NameOwner};
pub(crate) use participant::MAX_PARTICIPANTS;
pub use participant::{AddParticipant, NewParticipant, Participant};
pub use user_names::{UserName, UserNames};
