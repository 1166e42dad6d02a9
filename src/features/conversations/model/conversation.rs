//! Conversations: requests, responses and validation.

use super::message::Message;
use super::metadata::{Metadata, MetadataPatch};
use super::participant::{MAX_PARTICIPANTS, Participant};
use super::positive::positive;
use super::user_names::{UserName, UserNames};
use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::http::{Checked, Fields, Rules, double_option};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

const MAX_TITLE: usize = 255;

/// A conversation with its newest messages.
#[derive(Debug, Serialize, ToSchema)]
pub struct Conversation<'t> {
    /// Conversation id. Never reused.
    #[schema(example = 1)]
    pub id: i64,
    /// Title of the conversation.
    #[schema(example = "Planning the trip")]
    pub title: Option<String>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
    /// Time at which the newest message was appended. Null if there are no messages.
    pub last_message_at: Option<Timestamp>,
    /// JSON object attached by clients.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// The first participants, sorted by id: at most 100, fewer if the response would be too large.
    pub participants: Vec<&'t Participant<'t>>,
    /// Total number of participants.
    #[schema(example = 2)]
    pub participant_count: i64,
    /// Whether `participants` is incomplete. The participants route returns all of them.
    pub participants_truncated: bool,
    /// Total number of messages, including deleted ones.
    #[schema(example = 2)]
    pub message_count: i64,
    /// The newest messages, sorted oldest first.
    pub messages: &'t [Message<'t>],
    /// Whether older messages are omitted. The messages route returns all of them.
    pub messages_truncated: bool,
}

/// The id of a conversation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConversationId {
    /// Conversation id. Never reused.
    #[schema(example = 1)]
    pub id: i64,
}

/// Response to the creation of a conversation.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(rename_all = "snake_case")]
pub enum CreatedConversation<'t> {
    /// For callers with permission to read conversations.
    Conversation(Conversation<'t>),
    /// For API keys without `conversations:read`.
    Id(ConversationId),
}

/// Request to create a conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"title": "Planning the trip", "participant_ids": [1, 2]}))]
pub struct CreateConversation {
    /// Title of the conversation.
    #[schema(max_length = 255)]
    title: Option<String>,
    /// Ids of the initial participants. A signed-in user adds others by `participant_usernames`.
    #[serde(default)]
    #[schema(max_items = 1000)]
    participant_ids: Vec<i64>,
    /// Usernames of the initial participants, 1 to 100 characters each. At most 1000 together with
    /// `participant_ids`.
    #[serde(default)]
    #[schema(max_items = 1000, value_type = Vec<UserName>)]
    participant_usernames: Vec<String>,
    /// A JSON object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// A validated new conversation.
#[derive(Debug)]
pub struct NewConversation {
    pub(in crate::features::conversations) title: Option<String>,
    pub(in crate::features::conversations) participant_ids: Vec<i64>,
    pub(in crate::features::conversations) participant_usernames: UserNames,
    pub(in crate::features::conversations) metadata: Option<Metadata>,
}

/// Request to update a conversation. Absent and null fields stay unchanged. Unknown fields are
/// ignored, so a client can send back a conversation it received.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"title": "Planning the journey"}))]
pub struct UpdateConversation {
    /// New title.
    #[schema(max_length = 255)]
    title: Option<String>,
    /// A JSON object of at most 16 KiB. Replaces the previous metadata.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// JSON Merge Patch (RFC 7396) of a conversation. Absent fields stay unchanged; null clears a field.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"title": null, "metadata": {"topic": "travel", "draft": null}}))]
pub struct PatchConversation {
    /// New title. Null removes it.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(max_length = 255, value_type = Option<String>)]
    title: Option<Option<String>>,
    /// A JSON object of at most 16 KiB, merged into the stored metadata, which then has at most 16
    /// KiB: null removes an entry, and objects in it are merged the same way. Null removes the
    /// metadata.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Option<Value>>,
}

/// Validated changes to a conversation. `None` leaves the field unchanged.
#[derive(Debug)]
pub struct ConversationChanges {
    pub(in crate::features::conversations) title: Option<Option<String>>,
    pub(in crate::features::conversations) metadata: Option<MetadataChange>,
}

/// A change of the metadata of a conversation.
#[derive(Debug)]
pub enum MetadataChange {
    /// Remove the metadata.
    Clear,
    /// Apply a merge patch to the stored metadata.
    Merge(MetadataPatch),
    /// Replace the stored metadata.
    Replace(Metadata),
}

impl Checked for CreateConversation {
    type Valid = NewConversation;

    fn check(mut self, fields: &mut Fields, _: &Rules<'_>) -> NewConversation {
        const FIELD: &str = "participant_ids";
        if self.participant_ids.len() > MAX_PARTICIPANTS {
            let msg = format!("List should have at most {MAX_PARTICIPANTS} items");
            fields.add(FIELD, "too_long", msg, Value::Null);
        }
        for (index, id) in self.participant_ids.iter().enumerate().take(MAX_PARTICIPANTS) {
            positive(fields, vec![Loc::Name(FIELD.into()), Loc::Index(index)], *id);
        }
        self.participant_ids.sort_unstable();
        self.participant_ids.dedup();
        let (ids, names) = (self.participant_ids.len(), self.participant_usernames.len());
        if ids.max(names) <= MAX_PARTICIPANTS && ids + names > MAX_PARTICIPANTS {
            let msg = format!(
                "Value error, participant_ids and participant_usernames should have at most \
                 {MAX_PARTICIPANTS} items together"
            );
            fields.add("participant_usernames", "value_error", msg, Value::Null);
        }
        NewConversation {
            title: title(fields, self.title),
            participant_ids: self.participant_ids,
            participant_usernames: UserNames::check(fields, self.participant_usernames),
            metadata: self.metadata.and_then(|value| Metadata::check(fields, value)),
        }
    }
}

impl Checked for UpdateConversation {
    type Valid = ConversationChanges;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> ConversationChanges {
        let metadata = self.metadata.and_then(|value| Metadata::check(fields, value));
        ConversationChanges {
            title: title(fields, self.title).map(Some),
            metadata: metadata.map(MetadataChange::Replace),
        }
    }
}

impl Checked for PatchConversation {
    type Valid = ConversationChanges;
    const MERGE_PATCH: bool = true;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> ConversationChanges {
        let metadata = self.metadata.and_then(|value| match value {
            Some(value) => MetadataPatch::check(fields, value).map(MetadataChange::Merge),
            None => Some(MetadataChange::Clear),
        });
        ConversationChanges { title: self.title.map(|text| title(fields, text)), metadata }
    }
}

fn title(fields: &mut Fields, text: Option<String>) -> Option<String> {
    text.map(|text| fields.text("title", text, 0..=MAX_TITLE))
}
