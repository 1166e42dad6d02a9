//! The audit trail: what was done to keys and to the rights of users, by whom, from where.

use crate::db::{Tx, query};
use crate::security::Actor;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::net::IpAddr;

/// What can be done to a key or a user's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The first key was made, by `/bootstrap`, `MASTER_API_KEY` or the command line.
    Bootstrap,
    /// A key was made.
    Create,
    /// Its properties were changed.
    Update,
    /// It was switched off.
    Deactivate,
    /// It was removed.
    Delete,
    /// Another took its place.
    Rotate,
    /// It was switched off because its time had come.
    Expire,
    /// A user's password, email or status was changed.
    UpdateUser,
    /// A user was removed.
    DeleteUser,
}

/// What something was done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A key, by its id.
    Key(i64),
    /// A user; the details name it.
    User,
}

impl Action {
    /// Every one, for those who filter by it.
    pub const ALL: [Self; 9] = [
        Self::Bootstrap,
        Self::Create,
        Self::Update,
        Self::Deactivate,
        Self::Delete,
        Self::Rotate,
        Self::Expire,
        Self::UpdateUser,
        Self::DeleteUser,
    ];

    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Create => "create",
            Self::Update => "update",
            Self::Deactivate => "deactivate",
            Self::Delete => "delete",
            Self::Rotate => "rotate",
            Self::Expire => "expire",
            Self::UpdateUser => "update_user",
            Self::DeleteUser => "delete_user",
        }
    }
}

/// Who did something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    /// The key they showed; `None` for the server itself and for the first caller of all.
    pub key_id: Option<i64>,
    /// Where they called from; `None` for the server itself.
    pub ip: Option<IpAddr>,
}

impl From<&Actor> for Origin {
    fn from(actor: &Actor) -> Self {
        Self { key_id: Some(actor.key_id()), ip: Some(actor.ip()) }
    }
}

/// Records that `origin` did `action` to `subject`, in the transaction that does it: the trail
/// commits or rolls back with the change. `details` holds no secret.
pub async fn record(
    tx: &mut Tx,
    origin: Origin,
    action: Action,
    subject: Subject,
    details: &Value,
    at: DateTime<Utc>,
) -> sqlx::Result<()> {
    const SQL: &str = "INSERT INTO api_key_audit_logs \
         (api_key_id, action, performed_by_key_id, performed_by_ip, details, timestamp) \
         VALUES ($1, $2, $3, $4, $5, $6)";
    let key_id = match subject {
        Subject::Key(id) => Some(id),
        Subject::User => None,
    };
    let inserted = query(tx, SQL)
        .bind(key_id)
        .bind(action.as_str())
        .bind(origin.key_id)
        .bind(origin.ip.map(|ip| ip.to_string()))
        .bind(details.to_string())
        .bind(at)
        .execute()
        .await?;
    debug_assert_eq!(inserted, 1);
    Ok(())
}
