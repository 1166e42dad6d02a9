//! Audit log models: response bodies and filters.

use crate::audit::{Action, Row};
use crate::core::clock::Timestamp;
use crate::http::{FromQuery, QueryPairs};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// An audit entry.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLog {
    /// Position in the audit chain, 1, 2, 3 …; called `seq` when the log is verified or exported.
    pub id: i64,
    /// Id of the affected key, which may be deleted; null if the action affected no key.
    pub api_key_id: Option<i64>,
    /// Name of the affected key at that time.
    #[schema(example = "CI pipeline")]
    pub api_key_name: Option<String>,
    /// The recorded action.
    #[schema(example = "create")]
    pub action: String,
    /// Kind of caller: `key`, `user` (a signed-in user), `anonymous`, `host` (the server's command
    /// line) or `server`.
    #[schema(example = "key")]
    pub performed_by: String,
    /// Id of the caller's key; null unless `performed_by` is `key`.
    pub performed_by_key_id: Option<i64>,
    /// Name of the caller's key at that time.
    pub performed_by_key_name: Option<String>,
    /// Client address of the caller.
    #[schema(example = "192.0.2.1")]
    pub performed_by_ip: Option<String>,
    /// Id of the request: the `X-Request-Id` of its response.
    pub request_id: Option<String>,
    /// Details that depend on the action, such as the changed fields.
    #[schema(value_type = Object, example = json!({"name": "CI pipeline", "scopes": "read"}))]
    pub details: Value,
    /// Time of the action.
    pub timestamp: Timestamp,
    /// HMAC that links this entry to the previous one, in hexadecimal.
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

/// Filter for listing audit entries.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditFilter {
    /// Only entries that affect this key.
    #[param(minimum = 1)]
    pub api_key_id: Option<i64>,
    /// Only this action: `bootstrap`, `create`, `update`, `deactivate`, `delete`, `rotate`,
    /// `expire`, `update_user`, `delete_user`, `issue_password_reset`, `reset_password`,
    /// `auth_failed`, `adopt_trail`, `prune_trail`, `import`, `import_trail`,
    /// `change_audit_key`, `register`, `sign_in`, `edit_message`, `delete_message`,
    /// `delete_conversation`, `export` or `import_conversation`.
    #[param(value_type = Option<String>, max_length = 40, example = "rotate")]
    pub action: Option<&'static str>,
    /// Only entries at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Only entries before this time.
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
