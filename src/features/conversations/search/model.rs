//! Search types: parameters and results.

use super::words::Words;
use crate::core::clock::Timestamp;
use crate::features::conversations::model::Participant;
use crate::http::{FromQuery, QueryPairs};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

const MAX_QUERY: usize = 200;

/// Query parameter: what to search for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Search {
    /// Words separated by spaces. A message matches if it contains all of them, anywhere and in any
    /// case. Text in double quotes is one phrase. No other character has a special meaning.
    #[param(value_type = String, min_length = 1, max_length = 200, example = "trip \"next week\"")]
    pub q: Words,
}

impl FromQuery for Search {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { q: Words::parse(&query.required_text("q", MAX_QUERY).unwrap_or_default()) }
    }
}

/// A search result.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SearchHit {
    /// Id of the conversation.
    #[schema(example = 1)]
    pub conversation_id: i64,
    /// Title of the conversation.
    #[schema(example = "Planning the trip")]
    pub title: Option<String>,
    /// The message, without its content.
    pub message: FoundMessage,
    /// About 160 characters of the content around the first match, as HTML: `&`, `<`, `>` and
    /// quotes are escaped, matches are in `<mark>`, and `…` marks omitted text.
    #[schema(example = "Where shall we go on our <mark>trip</mark>?")]
    pub snippet: String,
}

/// A message without its content.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FoundMessage {
    /// Message id.
    #[schema(example = 42)]
    pub id: i64,
    /// Position in the conversation.
    #[schema(example = 1)]
    pub seq: i64,
    /// `user`, `assistant` or `system`.
    #[schema(example = "user")]
    pub role: String,
    /// Id of the author. Null if the author is not a user, or the user was deleted.
    pub user_id: Option<i64>,
    /// The author. Null if `user_id` is null.
    pub user: Option<Participant<'static>>,
    /// Time at which the message was appended.
    pub created_at: Timestamp,
    /// Time of the last edit. Null if the message was never edited.
    pub edited_at: Option<Timestamp>,
}
