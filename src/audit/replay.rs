//! Replays the audit log and compares the resulting API keys with the table `api_keys`.
//!
//! The chain proves that the audit log is unaltered, not that the table matches it: an attacker who
//! can write the database can change a key without an audit entry.

use super::chain::Row;
use super::origin::{Action, PerformedBy};
use super::repository::{self, StoredKey};
use crate::core::clock::Timestamp;
use crate::db::Snapshot;
use chrono::DateTime;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Maximum number of differences in the result.
const MAX_LISTED: usize = 100;

/// The compared properties, by their names in audit entries and the API.
const FIELDS: [&str; 10] = [
    "name",
    "description",
    "scopes",
    "is_active",
    "expires_at",
    "allowed_ips",
    "rate_limit_per_minute",
    "created_by_user_id",
    "rotated",
    "grace_expires_at",
];

/// A property of an API key that differs from the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ApiKeyDifference)]
pub struct KeyDifference {
    /// Id of the API key.
    #[schema(example = 3)]
    pub api_key_id: i64,
    /// The property: `exists`, `name`, `description`, `scopes`, `is_active`, `expires_at`,
    /// `allowed_ips`, `rate_limit_per_minute`, `created_by_user_id`, `rotated` or
    /// `grace_expires_at`.
    #[schema(example = "scopes")]
    pub field: &'static str,
    /// The value according to the audit log.
    #[schema(example = "read")]
    pub logged: Value,
    /// The value in the database.
    #[schema(example = "admin")]
    pub stored: Value,
    /// Position of the last audit entry about the key; null if there is none.
    #[schema(example = 17)]
    pub seq: Option<i64>,
}

/// The state of the API keys according to the entries replayed so far.
#[derive(Default)]
pub(super) struct Replay {
    keys: HashMap<i64, Logged>,
    /// Whether earlier entries are missing legitimately: retention removed them, or they are older
    /// than the chain.
    is_partial: bool,
    /// The lowest id of a key whose creation is in the audit log.
    first_created: Option<i64>,
}

/// The state of a key according to the audit log.
#[derive(Default)]
struct Logged {
    is_deleted: bool,
    seq: i64,
    /// In the order of [`FIELDS`]; `None` if the audit log does not record the value.
    fields: [Option<Value>; FIELDS.len()],
}

impl Replay {
    /// The state before the first entry; `is_pruned` if retention has removed older entries.
    pub(super) fn new(is_pruned: bool) -> Self {
        Self { is_partial: is_pruned, ..Self::default() }
    }

    /// Applies the next entry.
    pub(super) fn apply(&mut self, row: &Row) {
        let Some(action) = Action::ALL.into_iter().find(|action| action.as_str() == row.action)
        else {
            return;
        };
        if action == Action::AdoptEntries {
            // Entries before this one were not protected by the chain when they were written.
            *self = Self::new(true);
        }
        let Some(id) = row.api_key_id.filter(|_| action.changes_a_key()) else { return };
        let details: Value = serde_json::from_str(&row.details).unwrap_or_default();
        if row.performed_by == PerformedBy::Host.as_str() && details.get("original").is_some() {
            // An entry of the FastAPI app, about the time before the import of the key.
            return;
        }
        if matches!(action, Action::Bootstrap | Action::Create | Action::Import) {
            let logged = self.new_key(action, row, &details);
            self.keys.insert(id, logged);
            if action != Action::Import {
                self.first_created = Some(self.first_created.map_or(id, |first| first.min(id)));
            }
        } else {
            self.keys.entry(id).or_default().change(action, &details);
        }
        if let Some(logged) = self.keys.get_mut(&id) {
            logged.seq = row.seq;
        }
    }

    /// The state of a new key. A property that the entry lacks is unknown, as earlier versions
    /// recorded fewer properties.
    fn new_key(&self, action: Action, row: &Row, details: &Value) -> Logged {
        let mut logged = Logged::default();
        for field in ["name", "scopes", "expires_at", "allowed_ips", "rate_limit_per_minute"] {
            logged.set(field, details.get(field).cloned());
        }
        logged.set("is_active", Some(true.into()));
        logged.set("rotated", Some(false.into()));
        logged.set("grace_expires_at", Some(Value::Null));
        match action {
            Action::Import => {
                logged.set("name", row.api_key_name.clone().map(Value::from));
                logged.set("is_active", details.get("is_active").cloned());
                logged.set("rate_limit_per_minute", Some(Value::Null));
            }
            Action::Bootstrap if details.get("scopes").is_some() => {
                for field in
                    ["expires_at", "allowed_ips", "rate_limit_per_minute", "created_by_user_id"]
                {
                    logged.set(field, Some(Value::Null));
                }
            }
            _ => logged.set("created_by_user_id", self.owner_of_new(details)),
        }
        logged
    }

    /// The owner of a key created through the API: none, or the owner of the key that it replaces.
    fn owner_of_new(&self, details: &Value) -> Option<Value> {
        match details.get("rotated_from_id")? {
            Value::Null => Some(Value::Null),
            id => self.keys.get(&id.as_i64()?)?.get("created_by_user_id"),
        }
    }

    /// Compares the replayed state with the keys in `snapshot`.
    pub(super) async fn compare(
        mut self,
        snapshot: &mut Snapshot,
    ) -> sqlx::Result<Vec<KeyDifference>> {
        let (mut differences, mut after) = (vec![], i64::MIN);
        loop {
            let page = repository::keys_after(&mut *snapshot, after).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for key in page {
                self.compare_key(key, &mut differences);
            }
        }
        let mut missing: Vec<_> = self.keys.iter().filter(|(_, key)| !key.is_deleted).collect();
        missing.sort_unstable_by_key(|(id, _)| **id);
        differences.extend(
            missing.into_iter().map(|(id, key)| KeyDifference::exists(*id, true, Some(key.seq))),
        );
        differences.truncate(MAX_LISTED);
        Ok(differences)
    }

    fn compare_key(&mut self, key: StoredKey, differences: &mut Vec<KeyDifference>) {
        let id = key.id;
        let Some(logged) = self.keys.remove(&id) else {
            // Ids increase: a key older than the remaining entries has a lower id.
            let is_older = self.first_created.is_none_or(|first| id < first);
            if !(self.is_partial && is_older) {
                differences.push(KeyDifference::exists(id, false, None));
            }
            return;
        };
        if logged.is_deleted {
            differences.push(KeyDifference::exists(id, false, Some(logged.seq)));
            return;
        }
        let stored = key.into_fields();
        let fields = FIELDS.into_iter().zip(logged.fields).zip(stored);
        differences.extend(fields.filter_map(|((field, logged_value), stored)| {
            let logged_value = logged_value.filter(|value| *value != stored)?;
            let seq = Some(logged.seq);
            Some(KeyDifference { api_key_id: id, field, logged: logged_value, stored, seq })
        }));
    }
}

impl KeyDifference {
    /// A key that only the audit log has (`logged`) or only the table.
    fn exists(api_key_id: i64, logged: bool, seq: Option<i64>) -> Self {
        let (logged, stored) = (logged.into(), (!logged).into());
        Self { api_key_id, field: "exists", logged, stored, seq }
    }
}

impl Logged {
    /// Applies an entry about an existing key.
    fn change(&mut self, action: Action, details: &Value) {
        match action {
            Action::Update => {
                let changes = details.as_object().into_iter().flatten();
                for (field, change) in changes {
                    self.set(field, change.get("to").cloned());
                }
            }
            Action::Delete => self.is_deleted = true,
            Action::Rotate => {
                let grace = details.get("grace_expires_at");
                self.set("is_active", grace.map(|end| (!end.is_null()).into()));
                self.set("grace_expires_at", grace.cloned());
                self.set("rotated", Some(true.into()));
            }
            _ => self.set("is_active", Some(false.into())),
        }
    }

    fn set(&mut self, field: &str, value: Option<Value>) {
        if let Some(index) = FIELDS.iter().position(|known| *known == field) {
            self.fields[index] = value.map(|value| normalized(field, value));
        }
    }

    fn get(&self, field: &str) -> Option<Value> {
        let index = FIELDS.iter().position(|known| *known == field)?;
        self.fields[index].clone()
    }
}

impl StoredKey {
    /// In the order of [`FIELDS`].
    fn into_fields(self) -> [Value; FIELDS.len()] {
        [
            json!(self.name),
            json!(self.description),
            json!(self.scopes),
            json!(self.is_active),
            json!(self.expires_at),
            json!(self.allowed_ips),
            json!(self.rate_limit_per_minute),
            json!(self.created_by_user_id),
            json!(self.rotated_at.is_some()),
            json!(self.grace_expires_at),
        ]
    }
}

/// `value`, with times in one spelling.
fn normalized(field: &str, value: Value) -> Value {
    let is_time = matches!(field, "expires_at" | "grace_expires_at");
    let time =
        value.as_str().filter(|_| is_time).and_then(|t| DateTime::parse_from_rfc3339(t).ok());
    time.map_or(value, |time| json!(Timestamp(time.to_utc())))
}
