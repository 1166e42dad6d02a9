//! Users who are named in a request.

use super::{MAX_PARTICIPANTS, MAX_USERNAME};
use crate::core::error::Loc;
use crate::core::text::folded;
use crate::http::Fields;
use serde_json::Value;
use std::collections::HashSet;
use utoipa::ToSchema;

const FIELD: &str = "participant_usernames";

/// The name of a user, without regard to case.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 100, example = "alice")]
pub struct UserName(#[expect(dead_code, reason = "a schema of its own has the bounds")] String);

/// Usernames, each with what it is compared by. They are folded once, before a transaction begins.
#[derive(Debug, Default)]
pub struct UserNames(Vec<(String, String)>);

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
        let fold = |name: String| {
            let key = folded(&name);
            (name, key)
        };
        Self(names.into_iter().map(fold).collect())
    }

    /// What the names are compared by, each once.
    pub(in super::super) fn keys(&self) -> HashSet<&str> {
        self.0.iter().map(|(_, key)| key.as_str()).collect()
    }

    /// The names, as they were sent, whose keys are not among `known`.
    pub(in super::super) fn except(&self, known: &HashSet<&str>) -> Vec<&str> {
        let is_unknown = |(_, key): &&(String, String)| !known.contains(key.as_str());
        self.0.iter().filter(is_unknown).map(|(name, _)| name.as_str()).collect()
    }
}
