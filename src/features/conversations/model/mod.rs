//! Conversation types: requests, responses and validation.

mod json_text;
mod message;
mod metadata;
mod name;
mod user_names;

pub use json_text::JsonText;
pub use message::{
    CreateMessage, CreateMessages, EditMessage, Message, MessageChanges, NewMessage, ROLES,
};
pub use metadata::Metadata;
pub use name::{LookupName, NameOwner};
pub use user_names::{UserName, UserNames};

use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::http::{Checked, Direction, Fields, FromQuery, Order, QueryPairs, Rules};
use crate::security::Visibility;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

const MAX_TITLE: usize = 255;
/// Same limit as for users.
const MAX_USERNAME: usize = 100;
/// Maximum number of participants of a conversation. An import may exceed it.
pub(super) const MAX_PARTICIPANTS: usize = 1000;

/// Default number of messages per conversation in a list.
const LISTED_MESSAGES: i64 = 20;
/// Default number of messages of a single conversation.
const SHOWN_MESSAGES: i64 = 1000;

/// A participant of a conversation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Participant<'t> {
    /// User id.
    #[schema(example = 1)]
    pub id: i64,
    /// Username.
    #[schema(value_type = String, example = "alice")]
    pub username: JsonText<'t>,
    /// Email address. A signed-in user sees only their own.
    #[schema(value_type = Option<String>, example = "alice@example.com")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<JsonText<'t>>,
}

impl<'t> Participant<'t> {
    /// Lower bound of the size in a response, in bytes: username, email, and 40 for the rest.
    pub(super) fn json_bytes(&self) -> usize {
        let email = self.email.as_ref().map_or(0, JsonText::json_bytes);
        self.username.json_bytes() + email + 40
    }

    /// A participant as shown to a caller with this `visibility`, without the email if it is
    /// hidden.
    pub(super) fn visible_to(
        visibility: Visibility,
        id: i64,
        username: impl Into<JsonText<'t>>,
        email: impl Into<JsonText<'t>>,
    ) -> Self {
        let may_see = visibility.user_id().is_none_or(|own| own == id);
        Self { id, username: username.into(), email: may_see.then(|| email.into()) }
    }
}

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
    pub(super) title: Option<String>,
    pub(super) participant_ids: Vec<i64>,
    pub(super) participant_usernames: UserNames,
    pub(super) metadata: Option<Metadata>,
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

/// Validated changes to a conversation.
#[derive(Debug)]
pub struct ConversationChanges {
    pub(super) title: Option<String>,
    pub(super) metadata: Option<Metadata>,
}

/// Request to add a participant, by either `user_id` or `username`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"user_id": 3}))]
pub struct AddParticipant {
    /// Id of the user. A signed-in user may send only their own.
    #[schema(minimum = 1)]
    user_id: Option<i64>,
    /// Username, in any case. A signed-in user adds others by username.
    #[schema(min_length = 1, max_length = 100)]
    username: Option<String>,
}

/// The user to add as a participant.
#[derive(Debug)]
pub enum NewParticipant {
    /// By user id.
    Id(i64),
    /// By username.
    Name(LookupName),
}

/// Sort order of a list of conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationOrder {
    /// By id, ascending.
    Oldest,
    /// By id, descending.
    Newest,
    /// By time of the newest message, descending; by time of creation if there are no messages.
    Recent,
}

impl Order for ConversationOrder {
    const WORDS: &'static [(&'static str, Self)] =
        &[("asc", Self::Oldest), ("desc", Self::Newest), ("recent", Self::Recent)];
    const DEFAULT: Self = Self::Oldest;

    fn direction(self) -> Direction {
        match self {
            Self::Oldest => Direction::Ascending,
            Self::Newest | Self::Recent => Direction::Descending,
        }
    }
}

/// Query parameter: number of messages per conversation in a list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListedMessages {
    /// Maximum number of newest messages to include per conversation.
    #[param(minimum = 0, maximum = 1000, default = 20, required = false)]
    pub message_limit: i64,
}

/// Query parameter: number of messages of a single conversation.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ShownMessages {
    /// Maximum number of newest messages to include.
    #[param(minimum = 0, maximum = 1000, default = 1000, required = false)]
    pub message_limit: i64,
}

impl FromQuery for ListedMessages {
    fn from_query(query: &mut QueryPairs) -> Self {
        let limit = query.integer("message_limit", 0..=1000);
        Self { message_limit: limit.unwrap_or(LISTED_MESSAGES) }
    }
}

impl FromQuery for ShownMessages {
    fn from_query(query: &mut QueryPairs) -> Self {
        let limit = query.integer("message_limit", 0..=1000);
        Self { message_limit: limit.unwrap_or(SHOWN_MESSAGES) }
    }
}

fn title(fields: &mut Fields, text: Option<String>) -> Option<String> {
    text.map(|text| fields.text("title", text, 0..=MAX_TITLE))
}

fn positive(fields: &mut Fields, path: Vec<Loc>, id: i64) {
    if id < 1 {
        let msg = "Input should be greater than or equal to 1";
        fields.add_at(path, "greater_than_equal", msg, id.into());
    }
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
        ConversationChanges {
            title: title(fields, self.title),
            metadata: self.metadata.and_then(|value| Metadata::check(fields, value)),
        }
    }
}

impl Checked for AddParticipant {
    type Valid = NewParticipant;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> NewParticipant {
        match (self.user_id, self.username) {
            (Some(id), None) => {
                positive(fields, vec![Loc::Name("user_id".into())], id);
                NewParticipant::Id(id)
            }
            (None, Some(name)) => {
                let path = vec![Loc::Name("username".into())];
                let fits = fields.is_within(path, &name, 1..=MAX_USERNAME);
                NewParticipant::Name(LookupName::username(if fits { &name } else { "" }))
            }
            (Some(id), Some(_)) => {
                let msg = "Value error, send either user_id or username";
                fields.add("username", "value_error", msg, Value::Null);
                NewParticipant::Id(id)
            }
            (None, None) => {
                fields.add("user_id", "missing", "Field required", Value::Null);
                NewParticipant::Id(0)
            }
        }
    }
}
