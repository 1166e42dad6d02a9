//! The usernames in a request.

use super::name::{LookupName, MAX_USERNAME};
use super::participant::MAX_PARTICIPANTS;
use crate::core::error::Loc;
use crate::http::Fields;
use serde_json::Value;
use std::collections::HashSet;
use utoipa::ToSchema;

const FIELD: &str = "participant_usernames";

/// A username. Case is ignored.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 100, example = "alice")]
pub struct UserName(#[expect(dead_code, reason = "exists for its OpenAPI schema")] String);

/// Usernames as sent, each with its lookup name.
#[derive(Debug, Default)]
pub struct UserNames(Vec<(String, LookupName)>);

impl UserNames {
    /// Validates the field `participant_usernames`: at most 1000 names of 1 to 100 characters.
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
        // `count`, not `all`: every invalid name is reported.
        if names.iter().enumerate().map(is_within).filter(|fits| !fits).count() > 0 {
            return Self::default();
        }
        let with_key = |sent: String| {
            let name = LookupName::username(&sent);
            (sent, name)
        };
        Self(names.into_iter().map(with_key).collect())
    }

    /// The distinct lookup names.
    pub fn names(&self) -> HashSet<&LookupName> {
        self.0.iter().map(|(_, name)| name).collect()
    }

    /// The names, as sent, that are not in `known`.
    pub fn except(&self, known: &HashSet<&LookupName>) -> Vec<&str> {
        let is_unknown = |(_, name): &&(String, LookupName)| !known.contains(name);
        self.0.iter().filter(is_unknown).map(|(sent, _)| sent.as_str()).collect()
    }
}
