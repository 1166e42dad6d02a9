//! Changes of the audit key.
//!
//! The first start with another `AUDIT_KEY` appends an entry that the new key signs. From there on
//! only that key may sign: an earlier key, which may have leaked, verifies what stands before.

use super::{Action, Audit, Deed, Origin, Subject, lock_head};
use crate::core::trouble::NOT_CURRENT_AUDIT_KEY;
use crate::db::{Db, On, query};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// What a start with `AUDIT_KEY` means for the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// The last entry was made with it, or there is none.
    Current,
    /// The chain has changed to it just now.
    Changed,
    /// The chain has changed from it to a newer one before: it must not sign again.
    Retired,
}

impl Audit {
    /// Whether the last entry was made with `AUDIT_KEY`; true where there is none.
    pub async fn has_current_key(&self, on: impl Into<On<'_>>) -> sqlx::Result<bool> {
        Ok(last_key(on).await?.is_none_or(|id| id == i64::from(self.keys.current.id)))
    }

    /// Appends the entry that changes the chain to `AUDIT_KEY`, where the last entry was made with
    /// another key.
    pub async fn succeed(&self, db: &Db, now: DateTime<Utc>) -> sqlx::Result<Succession> {
        if self.has_current_key(db).await? {
            return Ok(Succession::Current);
        }
        let mut tx = db.begin().await?;
        let head = lock_head(&mut tx).await?;
        let id = i64::from(self.keys.current.id);
        let previous = match last_key(&mut tx).await? {
            Some(previous) if previous != id => previous,
            // Another server that starts with the same key was faster.
            _ => return Ok(Succession::Current),
        };
        if previous_keys(&mut tx).await?.contains(&id) {
            return Ok(Succession::Retired);
        }
        let details = json!({ "previous_key_id": previous, "key_id": id });
        let (action, subject) = (Action::ChangeAuditKey, Subject::Installation);
        let deeds = [Deed { action, subject, details: &details }];
        self.append(&mut tx, head, &Origin::SERVER, now, &deeds).await?;
        tx.commit().await?;
        Ok(Succession::Changed)
    }

    /// Fails where the chain has changed to another key since this process started: an entry made
    /// with the earlier one would not verify.
    pub(super) async fn require_current_key(&self, on: impl Into<On<'_>>) -> sqlx::Result<()> {
        if self.has_current_key(on).await? {
            return Ok(());
        }
        Err(sqlx::Error::Configuration(NOT_CURRENT_AUDIT_KEY.into()))
    }
}

/// The key before the change, which an entry of [`Action::ChangeAuditKey`] names.
pub(super) fn previous_key(details: &str) -> Option<i64> {
    serde_json::from_str::<Value>(details).ok()?.get("previous_key_id")?.as_i64()
}

/// The id of the key that the last entry was made with.
async fn last_key(on: impl Into<On<'_>>) -> sqlx::Result<Option<i64>> {
    const SQL: &str = "SELECT hash_key_id FROM api_key_audit_logs ORDER BY seq DESC LIMIT 1";
    let last: Option<(Option<i64>,)> = query(on, SQL).optional().await?;
    Ok(last.and_then(|(id,)| id))
}

/// The ids of the keys that the chain was changed from.
async fn previous_keys(on: impl Into<On<'_>>) -> sqlx::Result<Vec<i64>> {
    const SQL: &str = "SELECT details FROM api_key_audit_logs WHERE action = $1";
    let statement = query(on, SQL).bind(Action::ChangeAuditKey.as_str());
    let rows: Vec<(String,)> = statement.all().await?;
    Ok(rows.iter().filter_map(|(details,)| previous_key(details)).collect())
}
