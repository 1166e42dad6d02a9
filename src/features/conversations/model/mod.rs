//! What conversations are, in the database and on the wire.

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
pub use name::{Account, Name};
pub use user_names::{UserName, UserNames};

use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::http::{Checked, Direction, Fields, FromQuery, Order, QueryPairs, Rules};
use crate::security::Reach;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

const MAX_TITLE: usize = 255;
/// As in users.
const MAX_USERNAME: usize = 100;
/// Most participants of a conversation; an import may bring more.
pub(super) const MAX_PARTICIPANTS: usize = 1000;

/// Messages that a conversation in a list shows, unless asked otherwise.
const LISTED_MESSAGES: i64 = 20;
/// Messages that one conversation shows, unless asked otherwise.
const SHOWN_MESSAGES: i64 = 1000;

/// Somebody who takes part.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Participant<'t> {
    /// The user's id.
    #[schema(example = 1)]
    pub id: i64,
    /// The user's name.
    #[schema(value_type = String, example = "alice")]
    pub username: JsonText<'t>,
    /// The user's email; people who are logged in see only their own.
    #[schema(value_type = Option<String>, example = "alice@example.com")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<JsonText<'t>>,
}

impl<'t> Participant<'t> {
    /// At least the bytes it takes in an answer; 40 stands for all but name and email.
    pub(super) fn json_bytes(&self) -> usize {
        let email = self.email.as_ref().map_or(0, JsonText::json_bytes);
        self.username.json_bytes() + email + 40
    }

    /// A user as somebody with this `reach` sees them.
    pub(super) fn seen_by(
        reach: Reach,
        id: i64,
        username: impl Into<JsonText<'t>>,
        email: impl Into<JsonText<'t>>,
    ) -> Self {
        let may_see = reach.user_id().is_none_or(|own| own == id);
        Self { id, username: username.into(), email: may_see.then(|| email.into()) }
    }
}

/// A conversation with its newest messages.
#[derive(Debug, Serialize, ToSchema)]
pub struct Conversation<'t> {
    /// Never used again.
    #[schema(example = 1)]
    pub id: i64,
    /// What it is about.
    #[schema(example = "Planning the trip")]
    pub title: Option<String>,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When the newest message was appended; null where there is none.
    pub last_message_at: Option<Timestamp>,
    /// What clients attached to it.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// The first participants, by id: at most 100, and fewer where the answer has no room for more.
    pub participants: Vec<&'t Participant<'t>>,
    /// How many participants there are.
    #[schema(example = 2)]
    pub participant_count: i64,
    /// Whether participants are left out here; the participants route has them.
    pub participants_truncated: bool,
    /// Messages it has in all, those that were deleted included.
    #[schema(example = 2)]
    pub message_count: i64,
    /// The newest of them, the oldest first.
    pub messages: &'t [Message<'t>],
    /// Whether older messages are left out here; the messages route has them.
    pub messages_truncated: bool,
}

/// The id of a conversation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConversationId {
    /// Never used again.
    #[schema(example = 1)]
    pub id: i64,
}

/// The answer to a new conversation.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(rename_all = "snake_case")]
pub enum CreatedConversation<'t> {
    /// For callers who may read it.
    Conversation(Conversation<'t>),
    /// For keys without `conversations:read`.
    Id(ConversationId),
}

/// A new conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"title": "Planning the trip", "participant_ids": [1, 2]}))]
pub struct CreateConversation {
    #[schema(max_length = 255)]
    title: Option<String>,
    /// Users who take part from the start. Who is logged in names others by `participant_usernames`.
    #[serde(default)]
    #[schema(max_items = 1000)]
    participant_ids: Vec<i64>,
    /// The same by their names, of 1 to 100 characters each. At most 1000 together with
    /// `participant_ids`.
    #[serde(default)]
    #[schema(max_items = 1000, value_type = Vec<UserName>)]
    participant_usernames: Vec<String>,
    /// A JSON object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// A new conversation that keeps the rules.
#[derive(Debug)]
pub struct NewConversation {
    pub(super) title: Option<String>,
    pub(super) participant_ids: Vec<i64>,
    pub(super) participant_usernames: UserNames,
    pub(super) metadata: Option<Metadata>,
}

/// Changes to a conversation; what is absent or null stays as it is, and other fields are ignored,
/// so that a conversation can be sent back as it was got.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"title": "Planning the journey"}))]
pub struct UpdateConversation {
    #[schema(max_length = 255)]
    title: Option<String>,
    /// A JSON object of at most 16 KiB, in the place of the one before.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// Changes that keep the rules.
#[derive(Debug)]
pub struct ConversationChanges {
    pub(super) title: Option<String>,
    pub(super) metadata: Option<Metadata>,
}

/// Somebody who joins: by `user_id` or by `username`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"user_id": 3}))]
pub struct AddParticipant {
    #[schema(minimum = 1)]
    user_id: Option<i64>,
    /// The only way for somebody logged in.
    #[schema(min_length = 1, max_length = 100)]
    username: Option<String>,
}

/// A user who joins.
#[derive(Debug)]
pub enum Joining {
    /// By their id.
    Id(i64),
    /// By their name.
    Name(Name),
}

/// In which order conversations are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationOrder {
    /// The one begun first is first.
    Oldest,
    /// The one begun last is first.
    Newest,
    /// The one with the newest message is first; one without messages counts from its beginning.
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

/// How many messages each conversation of a list shows.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListedMessages {
    /// Newest messages to show of each conversation.
    #[param(minimum = 0, maximum = 1000, default = 20, required = false)]
    pub message_limit: i64,
}

/// How many messages one conversation shows.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ShownMessages {
    /// Newest messages to show.
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
    type Valid = Joining;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> Joining {
        match (self.user_id, self.username) {
            (Some(id), None) => {
                positive(fields, vec![Loc::Name("user_id".into())], id);
                Joining::Id(id)
            }
            (None, Some(name)) => {
                let path = vec![Loc::Name("username".into())];
                let fits = fields.is_within(path, &name, 1..=MAX_USERNAME);
                Joining::Name(Name::username(if fits { &name } else { "" }))
            }
            (Some(id), Some(_)) => {
                let msg = "Value error, send either user_id or username";
                fields.add("username", "value_error", msg, Value::Null);
                Joining::Id(id)
            }
            (None, None) => {
                fields.add("user_id", "missing", "Field required", Value::Null);
                Joining::Id(0)
            }
        }
    }
}
