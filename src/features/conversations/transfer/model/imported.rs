//! The lines of an import, and its report.

use crate::core::datetime::history;
use crate::core::error::Loc;
use crate::features::conversations::model::{LookupName, Metadata, ROLES};
use crate::http::{Checked, Fields, FromQuery, QueryPairs, Rules, time};
use chrono::{DateTime, Utc};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// Maximum number of entries in each list of a report.
pub const REPORTED: usize = 100;
const MAX_EXTERNAL_ID: usize = 255;
const MAX_TITLE: usize = 255;
/// Same limit as for users.
const MAX_USERNAME: usize = 100;
const MAX_EMAIL: usize = 254;
/// Maximum size of an imported message, so that it fits in a line when it is exported again.
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
    participants: Vec<NamedUser>,
    message_count: Option<i64>,
}

/// A line with more participants.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantsLine {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    #[serde(default)]
    participants: Vec<NamedUser>,
}

/// The line of a message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageLine {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    role: String,
    content: String,
    user: Option<NamedUser>,
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
struct NamedUser {
    username: Option<String>,
    email: Option<String>,
}

/// A user as named in an import, to be matched with a user of this installation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Sought {
    /// Username in the import.
    #[schema(example = "zoe")]
    pub username: Option<String>,
    /// Email address in the import.
    #[schema(example = "zoe@example.com")]
    pub email: Option<String>,
}

/// Query parameters of an import.
#[derive(Clone, Copy, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ImportOptions {
    /// Whether to attach history to users who took the username or email after the history was
    /// created. Octopus does not verify email addresses, so this can be a different user.
    #[param(default = false, required = false)]
    pub attach_newer_accounts: bool,
}

impl FromQuery for ImportOptions {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { attach_newer_accounts: query.flag("attach_newer_accounts").unwrap_or(false) }
    }
}

impl Sought {
    /// The name used for matching: the email if present, because another user can have the same
    /// username in the other installation.
    pub fn name(&self) -> LookupName {
        match (&self.email, &self.username) {
            (Some(email), _) => LookupName::email(email),
            (None, username) => LookupName::username(username.as_deref().unwrap_or_default()),
        }
    }
}

/// A validated conversation, without its messages.
pub struct ImportedConversation {
    pub external_id: String,
    pub title: Option<String>,
    pub metadata: Option<Metadata>,
    pub created_at: DateTime<Utc>,
    pub updated_at: Option<DateTime<Utc>>,
    pub participants: Vec<Sought>,
    pub message_count: Option<i64>,
}

/// A part of a conversation, as spooled.
#[derive(Debug, Serialize, Deserialize)]
pub enum SpooledPart {
    /// Participants.
    Participants(Vec<Sought>),
    /// The next message.
    Message(ImportedMessage),
}

/// A validated message.
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

/// Result of an import.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ImportReport {
    /// Number of conversations imported.
    #[schema(example = 2)]
    pub imported: u64,
    /// Number of conversations skipped, because their `external_id` already exists.
    #[schema(example = 1)]
    pub skipped: u64,
    /// Number of messages imported.
    #[schema(example = 40)]
    pub messages: u64,
    /// Users in the import without a matching user here; at most 100. They are not added as
    /// participants, and their messages have no author.
    pub unmatched: Vec<Sought>,
    /// Whether `unmatched` is incomplete.
    pub unmatched_truncated: bool,
    /// Users to whom history was attached; at most 100.
    pub matched: Vec<Match>,
    /// Whether `matched` is incomplete.
    pub matched_truncated: bool,
    /// Users who took the username or email after the history was created; at most 100. History was
    /// not attached to them, because they can be different users. With `attach_newer_accounts`,
    /// they are in `matched` instead.
    pub newer_accounts: Vec<Match>,
    /// Whether `newer_accounts` is incomplete.
    pub newer_accounts_truncated: bool,
}

/// A user in an import, and the matching user here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Match {
    /// The user as named in the import.
    pub person: Sought,
    /// Id of the matching user.
    #[schema(example = 1)]
    pub user_id: i64,
}

/// Matching results of one conversation: at most [`REPORTED`] and one more entries in each list.
#[derive(Debug, Default)]
pub struct UserMatches {
    pub unmatched: Vec<Sought>,
    pub matched: Vec<Match>,
    pub newer: Vec<Match>,
}

fn name(field: &'static str) -> Loc {
    Loc::Name(field.into())
}

/// Adds an error unless `text` has from 1 to `max` characters.
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

fn named_user(fields: &mut Fields, path: &[Loc], sent: NamedUser) -> Sought {
    if let Some(username) = &sent.username {
        length(fields, path, "username", username, MAX_USERNAME);
    }
    if let Some(email) = &sent.email {
        length(fields, path, "email", email, MAX_EMAIL);
    }
    if sent.username.is_none() && sent.email.is_none() {
        let msg = "Value error, a username, an email or both are required";
        fields.add_at(path.to_vec(), "value_error", msg, Value::Null);
    }
    Sought { username: sent.username, email: sent.email }
}

fn named_users(fields: &mut Fields, sent: Vec<NamedUser>) -> Vec<Sought> {
    let users = sent.into_iter().enumerate();
    let field = name("participants");
    users
        .map(|(index, sent)| named_user(fields, &[field.clone(), Loc::Index(index)], sent))
        .collect()
}

/// The required field `created_at`.
fn created_at(
    fields: &mut Fields,
    rules: &Rules<'_>,
    sent: Option<DateTime<Utc>>,
) -> DateTime<Utc> {
    past(fields, rules, "created_at", sent).unwrap_or_else(|| {
        fields.add("created_at", "missing", "Field required", Value::Null);
        DateTime::UNIX_EPOCH
    })
}

/// Adds an error unless the time of what has happened is in the range of [`history`].
fn past(
    fields: &mut Fields,
    rules: &Rules<'_>,
    field: &'static str,
    time: Option<DateTime<Utc>>,
) -> Option<DateTime<Utc>> {
    if let Some(time) = time.filter(|time| !history(rules.now).contains(time)) {
        let msg = format!("Value error, {field} must be from 1970 to 5 minutes from now");
        fields.add(field, "value_error", msg, time.to_rfc3339());
    }
    time
}

impl Checked for ConversationLine {
    type Valid = ImportedConversation;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> ImportedConversation {
        ImportedConversation {
            external_id: fields.text("external_id", self.external_id, 1..=MAX_EXTERNAL_ID),
            title: self.title.map(|text| fields.text("title", text, 0..=MAX_TITLE)),
            metadata: self.metadata.and_then(|value| Metadata::check(fields, value)),
            created_at: created_at(fields, rules, self.created_at),
            updated_at: past(fields, rules, "updated_at", self.updated_at),
            participants: named_users(fields, self.participants),
            message_count: self.message_count,
        }
    }
}

impl Checked for ParticipantsLine {
    type Valid = Vec<Sought>;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> Vec<Sought> {
        named_users(fields, self.participants)
    }
}

impl Checked for MessageLine {
    type Valid = ImportedMessage;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> ImportedMessage {
        if !ROLES.contains(&self.role.as_str()) {
            let msg = "Input should be 'user', 'assistant' or 'system'";
            fields.add("role", "enum", msg, self.role.as_str());
        }
        if self.content.len() > MAX_CONTENT_BYTES {
            let msg = format!("Value error, a message has at most {MAX_CONTENT_BYTES} bytes");
            fields.add("content", "value_error", msg, Value::Null);
        }
        let metadata = self.metadata.and_then(|value| Metadata::check(fields, value));
        // The content of a deleted message must not be imported.
        let (content, metadata) = match self.deleted_at {
            Some(_) => (String::new(), None),
            None => (self.content, metadata),
        };
        ImportedMessage {
            role: self.role,
            content,
            user: self.user.map(|sent| named_user(fields, &[name("user")], sent)),
            metadata: metadata.map(Metadata::into_string),
            created_at: created_at(fields, rules, self.created_at),
            edited_at: past(fields, rules, "edited_at", self.edited_at),
            deleted_at: past(fields, rules, "deleted_at", self.deleted_at),
        }
    }
}
