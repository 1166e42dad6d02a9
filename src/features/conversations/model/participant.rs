//! Participants: requests, responses and validation.

use super::json_text::JsonText;
use super::name::{LookupName, MAX_USERNAME};
use super::positive::positive;
use crate::core::error::Loc;
use crate::http::{Checked, Fields, Rules};
use crate::security::Visibility;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Maximum number of participants of a conversation. An import may exceed it.
pub(crate) const MAX_PARTICIPANTS: usize = 1000;

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
    pub(crate) fn json_bytes(&self) -> usize {
        let email = self.email.as_ref().map_or(0, JsonText::json_bytes);
        self.username.json_bytes() + email + 40
    }

    /// A participant as shown to a caller with this `visibility`, without the email if it is
    /// hidden.
    pub(crate) fn visible_to(
        visibility: Visibility,
        id: i64,
        username: impl Into<JsonText<'t>>,
        email: impl Into<JsonText<'t>>,
    ) -> Self {
        let may_see = visibility.user_id().is_none_or(|own| own == id);
        Self { id, username: username.into(), email: may_see.then(|| email.into()) }
    }
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
