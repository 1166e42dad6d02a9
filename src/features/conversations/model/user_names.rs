//! Users who are named in a request.

use super::{MAX_PARTICIPANTS, MAX_USERNAME, Name};
use crate::core::error::Loc;
use crate::http::Fields;
use serde_json::Value;
use std::collections::HashSet;
use utoipa::ToSchema;

const FIELD: &str = "participant_usernames";

/// The name of a user, without regard to case.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 100, example = "alice")]
pub struct UserName(#[expect(dead_code, reason = "a schema of its own has the bounds")] String);

/// Usernames as they were sent, each with what it is looked up by.
#[derive(Debug, Default)]
pub struct UserNames(Vec<(String, Name)>);

impl UserNames {
    /// Checks the field `participant_usernames`: at most 1000 names of 1 to 100 characters.
    pub(super) fn check(fields: &mut Fields, names: Vec<String>) -> Self {
        if names.len() > MAX_PARTICIPANTS {
            let msg = format!("List should have at most {MAX_PARTICIPANTS} items");
            fields.add(FIELD, "too_long", msg, Value::Null);
            return Self::default();
        }
        let is_within = |(index, name): (usize, &String)| {
            let path = vec![Loc::Name(FIELD.into()), Loc::Index(index)];
            fields.is_within(path, name, 1..=MAX_USERNAME)
        };
        // Counted, not `all`: every name that breaks the rule is reported.
        if names.iter().enumerate().map(is_within).filter(|fits| !fits).count() > 0 {
            return Self::default();
        }
        let with_key = |sent: String| {
            let name = Name::username(&sent);
            (sent, name)
        };
        Self(names.into_iter().map(with_key).collect())
    }

    /// What the names are looked up by, each once.
    pub fn names(&self) -> HashSet<&Name> {
        self.0.iter().map(|(_, name)| name).collect()
    }

    /// The names, as they were sent, that are not among `known`.
    pub fn except(&self, known: &HashSet<&Name>) -> Vec<&str> {
        let is_unknown = |(_, name): &&(String, Name)| !known.contains(name);
        self.0.iter().filter(is_unknown).map(|(sent, _)| sent.as_str()).collect()
    }
}
