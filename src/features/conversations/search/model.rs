//! What a search takes and answers.

use super::words::Words;
use crate::core::clock::Timestamp;
use crate::features::conversations::model::Participant;
use crate::http::{FromQuery, Part, QueryPairs};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

const MAX_QUERY: usize = 200;
const MAX_SKIP: i64 = 10_000;
const MAX_LIMIT: i64 = 100;
const LIMIT: i64 = 20;

/// What to search for, and which part of what is found to give.
#[derive(Debug)]
pub struct Search {
    /// The words.
    pub q: Words,
    /// Which part.
    pub part: Part,
}

/// The parameters of a search.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchParams {
    /// Words with blanks between them, each anywhere in the message, in upper or lower case; a
    /// message must have all. What stands in double quotes is one word with its blanks. No character
    /// means anything else.
    #[param(value_type = String, min_length = 1, max_length = 200, example = "trip \"next week\"")]
    pub q: Words,
    /// Entries to leave out from the start.
    #[param(minimum = 0, maximum = 10000, default = 0, required = false)]
    pub skip: i64,
    /// Most entries to give.
    #[param(minimum = 1, maximum = 100, default = 20, required = false)]
    pub limit: i64,
}

impl FromQuery for Search {
    fn from_query(query: &mut QueryPairs) -> Self {
        let text = query.required_text("q", MAX_QUERY).unwrap_or_default();
        Self { q: Words::parse(&text), part: query.part(MAX_SKIP, 1..=MAX_LIMIT, LIMIT) }
    }
}

/// A message that was found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SearchHit {
    /// Where it was said.
    #[schema(example = 1)]
    pub conversation_id: i64,
    /// What that conversation is about.
    #[schema(example = "Planning the trip")]
    pub title: Option<String>,
    /// The message, without its content.
    pub message: FoundMessage,
    /// About 160 characters of its content around the first hit, as HTML: `&`, `<`, `>` and quotes
    /// are escaped, what was found stands in `<mark>`, and `…` where something is left out.
    #[schema(example = "Where shall we go on our <mark>trip</mark>?")]
    pub snippet: String,
}

/// A message without its content.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FoundMessage {
    /// Its id.
    #[schema(example = 42)]
    pub id: i64,
    /// Its place in the conversation.
    #[schema(example = 1)]
    pub seq: i64,
    /// `user`, `assistant` or `system`.
    #[schema(example = "user")]
    pub role: String,
    /// Who said it; null where it was no user, or one who is gone.
    pub user_id: Option<i64>,
    /// The same user.
    pub user: Option<Participant<'static>>,
    /// When.
    pub created_at: Timestamp,
    /// When it was last edited.
    pub edited_at: Option<Timestamp>,
}
