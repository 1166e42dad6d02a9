//! The audit trail on the wire.

use crate::audit::{Action, Row};
use crate::core::clock::Timestamp;
use crate::http::{FromQuery, QueryPairs};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// A row of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLog {
    /// Its place in the chain, which `verify` calls `seq`: 1, 2, 3 …
    pub id: i64,
    /// The key something was done to; it may be gone. Null where it was done to a user.
    pub api_key_id: Option<i64>,
    /// What that key was called.
    #[schema(example = "CI pipeline")]
    pub api_key_name: Option<String>,
    /// What was done.
    #[schema(example = "create")]
    pub action: String,
    /// By what kind of caller: `key`, `user` (somebody logged in), `anonymous`, `host` (the server's
    /// command line) or `server`.
    #[schema(example = "key")]
    pub performed_by: String,
    /// The key of who did it; null unless `performed_by` is `key`.
    pub performed_by_key_id: Option<i64>,
    /// What that key was called.
    pub performed_by_key_name: Option<String>,
    /// Where they called from.
    #[schema(example = "192.0.2.1")]
    pub performed_by_ip: Option<String>,
    /// In which request: the `X-Request-Id` of its answer.
    pub request_id: Option<String>,
    /// What changed.
    #[schema(value_type = Object, example = json!({"name": "CI pipeline", "scopes": "read"}))]
    pub details: Value,
    /// When.
    pub timestamp: Timestamp,
    /// The HMAC that ties it to the row before, in hexadecimal digits.
    pub hash: Option<String>,
}

impl From<Row> for AuditLog {
    fn from(row: Row) -> Self {
        Self {
            id: row.seq,
            api_key_id: row.api_key_id,
            api_key_name: row.api_key_name,
            action: row.action,
            performed_by: row.performed_by,
            performed_by_key_id: row.performed_by_key_id,
            performed_by_key_name: row.performed_by_key_name,
            performed_by_ip: row.performed_by_ip,
            request_id: row.request_id,
            details: serde_json::from_str(&row.details).unwrap_or(Value::String(row.details)),
            timestamp: Timestamp(row.timestamp.at),
            hash: row.hash.map(hex::encode),
        }
    }
}

/// Which rows of the trail to give.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditFilter {
    /// Only those of this key.
    #[param(minimum = 1)]
    pub api_key_id: Option<i64>,
    /// Only this action: `bootstrap`, `create`, `update`, `deactivate`, `delete`, `rotate`,
    /// `expire`, `update_user`, `delete_user`, `issue_password_reset`, `reset_password`,
    /// `auth_failed`, `adopt_trail`, `prune_trail`, `import`, `import_trail`,
    /// `change_audit_key`, `register`, `sign_in`, `edit_message`, `delete_message`,
    /// `delete_conversation`, `export` or `import_conversation`.
    #[param(value_type = Option<String>, max_length = 40, example = "rotate")]
    pub action: Option<&'static str>,
    /// Only from this time on.
    pub since: Option<DateTime<Utc>>,
    /// Only before this time.
    pub until: Option<DateTime<Utc>>,
}

impl FromQuery for AuditFilter {
    fn from_query(query: &mut QueryPairs) -> Self {
        let known = Action::ALL.map(Action::as_str);
        let expected = known.map(|word| format!("'{word}'")).join(", ");
        Self {
            api_key_id: query.integer("api_key_id", 1..=i64::MAX),
            action: query
                .one_of("action", &expected, |text| known.into_iter().find(|word| *word == text)),
            since: query.time("since"),
            until: query.time("until"),
        }
    }
}
