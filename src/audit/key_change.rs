//! Changes of the audit key.
//!
//! The first start with another `AUDIT_KEY` appends an entry that the new key signs. After it, only
//! that key may sign. An earlier key, which may have leaked, only verifies the entries before.

use super::{Action, Audit, Operation, Origin, Subject, lock_head};
use crate::core::transient_error::NOT_CURRENT_AUDIT_KEY;
use crate::db::{Db, Executor, query};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// Whether `AUDIT_KEY` may sign the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// It signed the last entry, or there is no entry.
    Current,
    /// The chain has just changed to it.
    Changed,
    /// The chain has changed from it to a newer key before: it must not sign again.
    Retired,
}

impl Audit {
    /// Returns whether `AUDIT_KEY` signed the last entry; true if there is no entry.
    pub async fn has_current_key(&self, on: impl Into<Executor<'_>>) -> sqlx::Result<bool> {
        Ok(last_key(on).await?.is_none_or(|id| id == i64::from(self.keys.current.id)))
    }

    /// Appends the entry that changes the chain to `AUDIT_KEY`, unless it signed the last entry.
    pub async fn change_key(&self, db: &Db, now: DateTime<Utc>) -> sqlx::Result<KeyChange> {
        if self.has_current_key(db).await? {
            return Ok(KeyChange::Current);
        }
        let mut tx = db.begin().await?;
        let head = lock_head(&mut tx).await?;
        let id = i64::from(self.keys.current.id);
        let previous = match last_key(&mut tx).await? {
            Some(previous) if previous != id => previous,
            // Another server that starts with the same key has appended it.
            _ => return Ok(KeyChange::Current),
        };
        if previous_keys(&mut tx).await?.contains(&id) {
            return Ok(KeyChange::Retired);
        }
        let details = json!({ "previous_key_id": previous, "key_id": id });
        let (action, subject) = (Action::ChangeAuditKey, Subject::Installation);
        let operations = [Operation { action, subject, details: &details }];
        self.append(&mut tx, head, &Origin::SERVER, now, &operations).await?;
        tx.commit().await?;
        Ok(KeyChange::Changed)
    }

    /// Fails if the chain has changed to another key since this process started: an entry that the
    /// earlier key signs would not verify.
    pub(super) async fn require_current_key(
        &self,
        on: impl Into<Executor<'_>>,
    ) -> sqlx::Result<()> {
        if self.has_current_key(on).await? {
            return Ok(());
        }
        Err(sqlx::Error::Configuration(NOT_CURRENT_AUDIT_KEY.into()))
    }
}

/// The id of the previous key, from the details of an [`Action::ChangeAuditKey`] entry.
pub(super) fn previous_key(details: &str) -> Option<i64> {
    serde_json::from_str::<Value>(details).ok()?.get("previous_key_id")?.as_i64()
}

/// The id of the key that signed the last entry.
async fn last_key(on: impl Into<Executor<'_>>) -> sqlx::Result<Option<i64>> {
    const SQL: &str = "SELECT hash_key_id FROM api_key_audit_logs ORDER BY seq DESC LIMIT 1";
    let last: Option<(Option<i64>,)> = query(on, SQL).optional().await?;
    Ok(last.and_then(|(id,)| id))
}

/// The ids of the keys that the chain has changed from.
async fn previous_keys(on: impl Into<Executor<'_>>) -> sqlx::Result<Vec<i64>> {
    const SQL: &str = "SELECT details FROM api_key_audit_logs WHERE action = $1";
    let statement = query(on, SQL).bind(Action::ChangeAuditKey.as_str());
    let rows: Vec<(String,)> = statement.all().await?;
    Ok(rows.iter().filter_map(|(details,)| previous_key(details)).collect())
}
