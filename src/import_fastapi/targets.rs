//! Which rows of the target the rows of the source became.

use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::HashMap;

/// Users by their ids in the source.
pub type Users = HashMap<i64, Person>;

/// A user in the target.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    pub id: i64,
    /// The time of registration, if it can be parsed.
    pub since: Option<DateTime<Utc>>,
}

impl Person {
    /// Returns whether the user registered after `time`: older rows belong to an earlier user with
    /// the same id. `false` if one of the times is unknown.
    pub fn registered_after(&self, time: Option<DateTime<Utc>>) -> bool {
        self.since.zip(time).is_some_and(|(since, time)| time < since)
    }
}

/// The keys of the source, for rows that refer to them.
#[derive(Default)]
pub struct Keys {
    /// Keys in the target, by their ids in the source.
    pub by_id: HashMap<i64, Known>,
    /// Keys imported in this run: id, name and the details of the audit entry.
    pub taken: Vec<(i64, String, Value)>,
}

/// A key in the target.
pub struct Known {
    pub id: i64,
    pub name: String,
    /// The creation time, if it can be parsed.
    pub since: Option<DateTime<Utc>>,
}

/// Conversations by their ids in the source.
pub type Conversations = HashMap<i64, ConversationTarget>;

/// A conversation in the target.
#[derive(Clone, Copy, Debug)]
pub enum ConversationTarget {
    /// It was imported in this run.
    New { id: i64, since: DateTime<Utc> },
    /// It existed before with `messages` messages; the source has `found`.
    Here { messages: i64, found: i64 },
}
