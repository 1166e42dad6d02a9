//! What messages are, in the database and on the wire.

use super::{JsonText, Metadata, Participant, positive};
use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::http::{Checked, Fields, Rules, double_option, not_null};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Who may speak.
pub const ROLES: [&str; 3] = ["user", "assistant", "system"];
const MAX_CONTENT: usize = 100_000;
/// Most messages appended together.
const MAX_MESSAGES: usize = 1000;

/// Something that was said.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Message<'t> {
    /// Never used again.
    #[schema(example = 42)]
    pub id: i64,
    /// Where it was said.
    #[schema(example = 1)]
    pub conversation_id: i64,
    /// Its place in the conversation: 1, 2, 3 … without gaps.
    #[schema(example = 1)]
    pub seq: i64,
    /// `user`, `assistant` or `system`.
    #[schema(value_type = String, example = "user")]
    pub role: JsonText<'t>,
    /// What was said; empty once it is deleted.
    #[schema(value_type = String, example = "Hello!")]
    pub content: JsonText<'t>,
    /// Who said it; null where it was no user, or one who is gone.
    pub user_id: Option<i64>,
    /// The same user.
    pub user: Option<Participant<'t>>,
    /// What clients attached to it.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// When.
    pub created_at: Timestamp,
    /// When it was last edited.
    pub edited_at: Option<Timestamp>,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// Counts its changes; in quotes, its `ETag`.
    #[schema(example = 1)]
    pub version: i64,
}

impl Message<'_> {
    /// Bytes of its text.
    pub(in super::super) fn content_bytes(&self) -> i64 {
        i64::try_from(self.content.stored_bytes()).unwrap_or(i64::MAX)
    }

    /// Bytes of its metadata.
    pub(in super::super) fn metadata_bytes(&self) -> i64 {
        let bytes = self.metadata.as_ref().map_or(0, |metadata| metadata.get().len());
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    /// At least the bytes it takes in an answer: its content as JSON writes it, its metadata, and
    /// 320 for the rest.
    pub(in super::super) fn json_bytes(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, |metadata| metadata.get().len());
        self.content.json_bytes() + metadata + 320
    }
}

/// A new message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"role": "user", "content": "Hello!", "user_id": 1}))]
pub struct CreateMessage {
    /// `user`, `assistant` or `system`; of somebody logged in, `user`.
    #[schema(max_length = 9, example = "user")]
    role: String,
    #[schema(min_length = 1, max_length = 100_000)]
    content: String,
    /// Who says it: a user who takes part. Who is logged in speaks for themselves.
    #[schema(minimum = 1)]
    user_id: Option<i64>,
    /// A JSON object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// A new message that keeps the rules, but perhaps not the one of its role.
#[derive(Debug)]
pub struct NewMessage {
    pub(in super::super) role: String,
    pub(in super::super) content: String,
    pub(in super::super) user_id: Option<i64>,
    pub(in super::super) metadata: Option<Metadata>,
}

/// Messages that are appended together, in their order: all of them or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."}]}))]
pub struct CreateMessages {
    #[schema(min_items = 1, max_items = 1000)]
    messages: Vec<CreateMessage>,
}

/// Changes to a message. Only the fields sent change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"content": "Hello, everybody!"}))]
pub struct EditMessage {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(min_length = 1, max_length = 100_000, nullable = false)]
    content: Option<String>,
    /// A JSON object of at most 16 KiB; null takes it away.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Option<Value>>,
}

/// Changes that keep the rules. In each field `None` is no change.
#[derive(Debug)]
pub struct MessageChanges {
    pub(in super::super) content: Option<String>,
    pub(in super::super) metadata: Option<Option<Metadata>>,
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
    const ROOM: usize = 16 * 1024 * 1024;

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
