//! Message types: requests, responses and validation.

use super::json_text::JsonText;
use super::metadata::Metadata;
use super::participant::Participant;
use super::positive::positive;
use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::http::{Checked, Fields, Rules, double_option, not_null};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Roles of a message.
pub const ROLES: [&str; 3] = ["user", "assistant", "system"];
const MAX_CONTENT: usize = 100_000;
/// Maximum number of messages in a batch.
const MAX_MESSAGES: usize = 1000;

/// A message in a conversation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Message<'t> {
    /// Message id. Never reused.
    #[schema(example = 42)]
    pub id: i64,
    /// Id of the conversation.
    #[schema(example = 1)]
    pub conversation_id: i64,
    /// Position in the conversation: 1, 2, 3 … without gaps.
    #[schema(example = 1)]
    pub seq: i64,
    /// `user`, `assistant` or `system`.
    #[schema(value_type = String, example = "user")]
    pub role: JsonText<'t>,
    /// Text of the message. Empty if the message was deleted.
    #[schema(value_type = String, example = "Hello!")]
    pub content: JsonText<'t>,
    /// Id of the author. Null if the author is not a user, or the user was deleted.
    pub user_id: Option<i64>,
    /// The author. Null if `user_id` is null.
    pub user: Option<Participant<'t>>,
    /// JSON object attached by clients.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// Time at which the message was appended.
    pub created_at: Timestamp,
    /// Time of the last edit. Null if the message was never edited.
    pub edited_at: Option<Timestamp>,
    /// Time of the deletion. Null if the message is not deleted.
    pub deleted_at: Option<Timestamp>,
    /// Version number, incremented by each change. The `ETag` is this number in quotes.
    #[schema(example = 1)]
    pub version: i64,
}

impl Message<'_> {
    /// Size of the content in bytes.
    pub(crate) fn content_bytes(&self) -> i64 {
        i64::try_from(self.content.stored_bytes()).unwrap_or(i64::MAX)
    }

    /// Size of the metadata in bytes.
    pub(crate) fn metadata_bytes(&self) -> i64 {
        let bytes = self.metadata.as_ref().map_or(0, |metadata| metadata.get().len());
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    /// Lower bound of the size in a response, in bytes: content as JSON, metadata, and 320 for the
    /// other fields.
    pub(crate) fn json_bytes(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, |metadata| metadata.get().len());
        self.content.json_bytes() + metadata + 320
    }
}

/// Request to append a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"role": "user", "content": "Hello!", "user_id": 1}))]
pub struct CreateMessage {
    /// `user`, `assistant` or `system`. A signed-in user may only use `user`.
    #[schema(max_length = 9, example = "user")]
    role: String,
    /// Text of the message.
    #[schema(min_length = 1, max_length = 100_000)]
    content: String,
    /// Id of the author, who must be a participant. For a signed-in user, their own id or absent.
    #[schema(minimum = 1)]
    user_id: Option<i64>,
    /// A JSON object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// A validated new message. The role is not validated yet.
#[derive(Debug)]
pub struct NewMessage {
    pub(in crate::features::conversations) role: String,
    pub(in crate::features::conversations) content: String,
    pub(in crate::features::conversations) user_id: Option<i64>,
    pub(in crate::features::conversations) metadata: Option<Metadata>,
}

/// Request to append a batch of messages: all of them or none, in their order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."}]}))]
pub struct CreateMessages {
    /// The messages to append, in order.
    #[schema(min_items = 1, max_items = 1000)]
    messages: Vec<CreateMessage>,
}

/// Request to edit a message. Only the fields sent change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"content": "Hello, everybody!"}))]
pub struct EditMessage {
    /// New text of the message.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(min_length = 1, max_length = 100_000, nullable = false)]
    content: Option<String>,
    /// A JSON object of at most 16 KiB. Null removes the metadata.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Option<Value>>,
}

/// Validated changes to a message. `None` leaves the field unchanged.
#[derive(Debug)]
pub struct MessageChanges {
    pub(in crate::features::conversations) content: Option<String>,
    pub(in crate::features::conversations) metadata: Option<Option<Metadata>>,
}

impl Checked for CreateMessage {
    type Valid = NewMessage;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> NewMessage {
        if let Some(id) = self.user_id {
            positive(fields, vec![Loc::Name("user_id".into())], id);
        }
        NewMessage {
            role: self.role,
            content: fields.text("content", self.content, 1..=MAX_CONTENT),
            user_id: self.user_id,
            metadata: self.metadata.and_then(|value| Metadata::check(fields, value)),
        }
    }
}

impl Checked for CreateMessages {
    type Valid = Vec<NewMessage>;
    const MIN_LIMIT: usize = 16 * 1024 * 1024;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> Vec<NewMessage> {
        const FIELD: &str = "messages";
        if self.messages.is_empty() {
            fields.add(FIELD, "too_short", "List should have at least 1 item", Value::Null);
        }
        if self.messages.len() > MAX_MESSAGES {
            let msg = format!("List should have at most {MAX_MESSAGES} items");
            fields.add(FIELD, "too_long", msg, Value::Null);
            return vec![];
        }
        let check = |(index, message): (usize, CreateMessage)| {
            fields.within(FIELD, index, |fields| {
                if !ROLES.contains(&message.role.as_str()) {
                    let msg = "Input should be 'user', 'assistant' or 'system'";
                    fields.add("role", "literal_error", msg, message.role.as_str());
                }
                message.check(fields, rules)
            })
        };
        self.messages.into_iter().enumerate().map(check).collect()
    }
}

impl Checked for EditMessage {
    type Valid = MessageChanges;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> MessageChanges {
        MessageChanges {
            content: self.content.map(|text| fields.text("content", text, 1..=MAX_CONTENT)),
            metadata: self
                .metadata
                .map(|value| value.and_then(|value| Metadata::check(fields, value))),
        }
    }
}
