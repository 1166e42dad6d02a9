//! Parameters of lists of conversations.

use crate::http::{Direction, FromQuery, Order, QueryPairs};
use utoipa::IntoParams;

/// Default number of messages per conversation in a list.
const LISTED_MESSAGES: i64 = 20;
/// Default number of messages of a single conversation.
const SHOWN_MESSAGES: i64 = 1000;

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
