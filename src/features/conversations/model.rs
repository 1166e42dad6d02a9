//! What conversations and messages are, in the database and on the wire.

use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::http::{Checked, Fields, FromQuery, QueryPairs, Rules};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

const MAX_TITLE: usize = 255;
const MAX_CONTENT: usize = 100_000;
const MAX_PARTICIPANTS: usize = 1000;

/// Messages that a conversation in a list shows, unless asked otherwise.
const LISTED_MESSAGES: i64 = 20;
/// Messages that one conversation shows, unless asked otherwise.
const SHOWN_MESSAGES: i64 = 1000;

/// Somebody who takes part.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Participant {
    /// The user's id.
    #[schema(example = 1)]
    pub id: i64,
    /// The user's name.
    #[schema(example = "alice")]
    pub username: String,
    /// The user's email.
    #[schema(example = "alice@example.com")]
    pub email: String,
}

/// Something that was said.
#[derive(Debug, Serialize, ToSchema)]
pub struct Message {
    /// Never used again.
    #[schema(example = 42)]
    pub id: i64,
    /// Where it was said.
    #[schema(example = 1)]
    pub conversation_id: i64,
    /// `user`, `assistant` or `system`.
    #[schema(example = "user")]
    pub role: String,
    /// What was said.
    #[schema(example = "Hello!")]
    pub content: String,
    /// Who said it; null where it was no user, or one who is gone.
    pub user_id: Option<i64>,
    /// The same user.
    pub user: Option<Participant>,
    /// When.
    pub created_at: Timestamp,
}

impl Message {
    /// At least the bytes it takes in an answer: its content as JSON writes it, and 256 for the
    /// rest.
    pub(super) fn json_bytes(&self) -> usize {
        let written = |byte: u8| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            0..0x20 => 6,
            _ => 1,
        };
        self.content.bytes().map(written).sum::<usize>() + 256
    }
}

/// A conversation with its newest messages.
#[derive(Debug, Serialize, ToSchema)]
pub struct Conversation {
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
    /// Who takes part, by id.
    pub participants: Vec<Participant>,
    /// Messages it has in all.
    #[schema(example = 2)]
    pub message_count: i64,
    /// The newest of them, the oldest first.
    pub messages: Vec<Message>,
    /// Whether older messages are left out here; the messages route has them.
    pub messages_truncated: bool,
}

/// A new conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"title": "Planning the trip", "participant_ids": [1, 2]}))]
pub struct CreateConversation {
    #[schema(max_length = 255)]
    title: Option<String>,
    /// Users who take part from the start.
    #[serde(default)]
    #[schema(max_items = 1000)]
    participant_ids: Vec<i64>,
}

/// A new conversation that keeps the rules.
#[derive(Debug)]
pub struct NewConversation {
    pub(super) title: Option<String>,
    pub(super) participant_ids: Vec<i64>,
}

/// Changes to a conversation; what is absent or null stays as it is, and other fields are ignored,
/// so that a conversation can be sent back as it was got.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"title": "Planning the journey"}))]
pub struct UpdateConversation {
    #[schema(max_length = 255)]
    title: Option<String>,
}

/// Changes that keep the rules.
#[derive(Debug)]
pub struct ConversationChanges {
    pub(super) title: Option<String>,
}

/// A new message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"role": "user", "content": "Hello!", "user_id": 1}))]
pub struct CreateMessage {
    /// `user`, `assistant` or `system`.
    #[schema(example = "user")]
    role: String,
    #[schema(min_length = 1, max_length = 100_000)]
    content: String,
    /// Who says it: a user who takes part.
    #[schema(minimum = 1)]
    user_id: Option<i64>,
}

/// A new message that keeps the rules, but perhaps not the one of its role.
#[derive(Debug)]
pub struct NewMessage {
    pub(super) role: String,
    pub(super) content: String,
    pub(super) user_id: Option<i64>,
}

/// Somebody who joins.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"user_id": 3}))]
pub struct AddParticipant {
    #[schema(minimum = 1)]
    user_id: i64,
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
        NewConversation { title: title(fields, self.title), participant_ids: self.participant_ids }
    }
}

impl Checked for UpdateConversation {
    type Valid = ConversationChanges;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> ConversationChanges {
        ConversationChanges { title: title(fields, self.title) }
    }
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
        }
    }
}

impl Checked for AddParticipant {
    /// The user's id.
    type Valid = i64;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> i64 {
        positive(fields, vec![Loc::Name("user_id".into())], self.user_id);
        self.user_id
    }
}
