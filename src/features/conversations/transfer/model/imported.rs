//! The lines that are taken in.

use crate::core::error::Loc;
use crate::features::conversations::model::{Metadata, Name};
use crate::http::{Checked, Fields, FromQuery, QueryPairs, Rules, time};
use chrono::{DateTime, Utc};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// Most people that a report names.
pub const REPORTED: usize = 100;
const ROLES: [&str; 3] = ["user", "assistant", "system"];
const MAX_EXTERNAL_ID: usize = 255;
const MAX_TITLE: usize = 255;
/// As in users.
const MAX_USERNAME: usize = 100;
const MAX_EMAIL: usize = 254;
/// A message that is taken in can be exported again: this leaves room for the rest of its line.
const MAX_CONTENT_BYTES: usize = 1_000_000;

/// The line of a conversation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConversationLine {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    external_id: String,
    title: Option<String>,
    metadata: Option<Value>,
    #[serde(default, deserialize_with = "time")]
    created_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "time")]
    updated_at: Option<DateTime<Utc>>,
    #[serde(default)]
    participants: Vec<PersonSent>,
    message_count: Option<i64>,
}

/// A line of more people who take part.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantsLine {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    #[serde(default)]
    participants: Vec<PersonSent>,
}

/// The line of a message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageLine {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    role: String,
    content: String,
    user: Option<PersonSent>,
    metadata: Option<Value>,
    #[serde(default, deserialize_with = "time")]
    created_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "time")]
    edited_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "time")]
    deleted_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with a username, an email or both")]
struct PersonSent {
    username: Option<String>,
    email: Option<String>,
}

/// Somebody who may be a user here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Sought {
    /// Their name elsewhere.
    #[schema(example = "zoe")]
    pub username: Option<String>,
    /// Their email elsewhere.
    #[schema(example = "zoe@example.com")]
    pub email: Option<String>,
}

/// What an operator says of an import.
#[derive(Clone, Copy, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ImportOptions {
    /// Whether history is attached to users who took its name only after it was made. Octopus does
    /// not verify emails: whoever registered one may be somebody else.
    #[param(default = false, required = false)]
    pub attach_newer_accounts: bool,
}

impl FromQuery for ImportOptions {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { attach_newer_accounts: query.flag("attach_newer_accounts").unwrap_or(false) }
    }
}

impl Sought {
    /// The email decides, where there is one: somebody else may have the same name elsewhere.
    pub fn name(&self) -> Name {
        match (&self.email, &self.username) {
            (Some(email), _) => Name::email(email),
            (None, username) => Name::username(username.as_deref().unwrap_or_default()),
        }
    }
}

/// A conversation that keeps the rules, without its messages.
pub struct ImportedConversation {
    pub external_id: String,
    pub title: Option<String>,
    pub metadata: Option<Metadata>,
    pub created_at: DateTime<Utc>,
    pub updated_at: Option<DateTime<Utc>>,
    pub participants: Vec<Sought>,
    pub message_count: Option<i64>,
}

/// What belongs to a conversation.
#[derive(Debug, Serialize, Deserialize)]
pub enum Part {
    /// People who take part.
    Participants(Vec<Sought>),
    /// The next message.
    Message(ImportedMessage),
}

/// A message that keeps the rules.
#[derive(Debug, Serialize, Deserialize)]
pub struct ImportedMessage {
    pub role: String,
    pub content: String,
    pub user: Option<Sought>,
    pub metadata: Option<String>,
    pub created_at: DateTime<Utc>,
    pub edited_at: Option<DateTime<Utc>>,
    pub deleted_at: Option<DateTime<Utc>>,
}

/// What was taken in.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ImportReport {
    /// Conversations that are here now and were not before.
    #[schema(example = 2)]
    pub imported: u64,
    /// Conversations that were here before, and stay as they are.
    #[schema(example = 1)]
    pub skipped: u64,
    /// Messages of those imported.
    #[schema(example = 40)]
    pub messages: u64,
    /// People in those imported who are no users here, the first hundred of them: they take no
    /// part, and what they said is nobody's.
    pub unmatched: Vec<Sought>,
    /// Whether there were more.
    pub unmatched_truncated: bool,
    /// Who history was attached to, the first hundred.
    pub matched: Vec<Match>,
    /// Whether there were more.
    pub matched_truncated: bool,
    /// Users who took the name only after the history was made, the first hundred: as nothing shows
    /// that they are the same people, nothing was attached to them, unless `attach_newer_accounts`
    /// was set, and then they are in `matched`.
    pub newer_accounts: Vec<Match>,
    /// Whether there were more.
    pub newer_accounts_truncated: bool,
}

/// Somebody in an import, and the user here who has their name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Match {
    /// How the import names them.
    pub person: Sought,
    /// The user's id.
    #[schema(example = 1)]
    pub user_id: i64,
}

/// The people of one conversation, of each kind one more than are reported at most.
#[derive(Debug, Default)]
pub struct People {
    pub unmatched: Vec<Sought>,
    pub matched: Vec<Match>,
    pub newer: Vec<Match>,
}

fn name(field: &'static str) -> Loc {
    Loc::Name(field.into())
}

/// Adds a problem unless `text` has from `min` to `max` characters.
fn length(fields: &mut Fields, path: &[Loc], field: &'static str, text: &str, max: usize) {
    let path = || [path, &[name(field)]].concat();
    let characters = text.chars().count();
    if characters == 0 {
        let msg = "String should have at least 1 character";
        fields.add_at(path(), "string_too_short", msg, text.into());
    } else if characters > max {
        let msg = format!("String should have at most {max} characters");
        fields.add_at(path(), "string_too_long", msg, text.into());
    }
}

fn person(fields: &mut Fields, path: &[Loc], sent: PersonSent) -> Sought {
    if let Some(username) = &sent.username {
        length(fields, path, "username", username, MAX_USERNAME);
    }
    if let Some(email) = &sent.email {
        length(fields, path, "email", email, MAX_EMAIL);
    }
    if sent.username.is_none() && sent.email.is_none() {
        let msg = "Value error, name somebody by username, by email or by both";
        fields.add_at(path.to_vec(), "value_error", msg, Value::Null);
    }
    Sought { username: sent.username, email: sent.email }
}

fn people(fields: &mut Fields, sent: Vec<PersonSent>) -> Vec<Sought> {
    let people = sent.into_iter().enumerate();
    let field = name("participants");
    people.map(|(index, sent)| person(fields, &[field.clone(), Loc::Index(index)], sent)).collect()
}

/// When something was made, which must be said.
fn created_at(fields: &mut Fields, sent: Option<DateTime<Utc>>) -> DateTime<Utc> {
    sent.unwrap_or_else(|| {
        fields.add("created_at", "missing", "Field required", Value::Null);
        DateTime::UNIX_EPOCH
    })
}

impl Checked for ConversationLine {
    type Valid = ImportedConversation;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> ImportedConversation {
        ImportedConversation {
            external_id: fields.text("external_id", self.external_id, 1..=MAX_EXTERNAL_ID),
            title: self.title.map(|text| fields.text("title", text, 0..=MAX_TITLE)),
            metadata: self.metadata.and_then(|value| Metadata::check(fields, value)),
            created_at: created_at(fields, self.created_at),
            updated_at: self.updated_at,
            participants: people(fields, self.participants),
            message_count: self.message_count,
        }
    }
}

impl Checked for ParticipantsLine {
    type Valid = Vec<Sought>;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> Vec<Sought> {
        people(fields, self.participants)
    }
}

impl Checked for MessageLine {
    type Valid = ImportedMessage;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> ImportedMessage {
        if !ROLES.contains(&self.role.as_str()) {
            let msg = "Input should be 'user', 'assistant' or 'system'";
            fields.add("role", "enum", msg, self.role.as_str());
        }
        if self.content.len() > MAX_CONTENT_BYTES {
            let msg = format!("Value error, a message has at most {MAX_CONTENT_BYTES} bytes");
            fields.add("content", "value_error", msg, Value::Null);
        }
        let metadata = self.metadata.and_then(|value| Metadata::check(fields, value));
        // What was deleted elsewhere is not to be read here.
        let (content, metadata) = match self.deleted_at {
            Some(_) => (String::new(), None),
            None => (self.content, metadata),
        };
        ImportedMessage {
            role: self.role,
            content,
            user: self.user.map(|sent| person(fields, &[name("user")], sent)),
            metadata: metadata.map(Metadata::into_string),
            created_at: created_at(fields, self.created_at),
            edited_at: self.edited_at,
            deleted_at: self.deleted_at,
        }
    }
}
