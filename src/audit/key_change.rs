//! Changes of the audit key.
//!
//! The first start with another `AUDIT_KEY` appends an entry that the new key signs. After it, only
//! that key may sign. An earlier key, which may have leaked, only verifies the entries before.

use super::audit_log::{Audit, Operation};
use super::origin::{Action, Origin, Subject};
use super::repository;
use crate::db::Db;
use chrono::{DateTime, Utc};
use serde_json::json;

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
    /// Appends the entry that changes the chain to `AUDIT_KEY`, unless it signed the last entry.
    pub async fn change_key(&self, db: &Db, now: DateTime<Utc>) -> sqlx::Result<KeyChange> {
        if self.has_current_key(db).await? {
            return Ok(KeyChange::Current);
        }
        let mut tx = db.begin().await?;
        let head = repository::lock_head(&mut tx).await?;
        let id = i64::from(self.keys.current.id);
        let previous = match repository::last_key(&mut tx).await? {
            Some(previous) if previous != id => previous,
            // Another server that starts with the same key has appended it.
            _ => return Ok(KeyChange::Current),
        };
        if repository::previous_keys(&mut tx).await?.contains(&id) {
            return Ok(KeyChange::Retired);
        }
        let details = json!({ "previous_key_id": previous, "key_id": id });
        let (action, subject) = (Action::ChangeAuditKey, Subject::Installation);
        let operations = [Operation { action, subject, details: &details }];
        self.append(&mut tx, head, &Origin::SERVER, now, &operations).await?;
        tx.commit().await?;
        Ok(KeyChange::Changed)
    }
}
