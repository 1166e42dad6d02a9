//! A turn at changing keys: one change at a time, made by a key that still may, and that makes no
//! key stronger than itself.

use super::super::model::ApiKey;
use super::super::repository;
use crate::audit::Origin;
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::security::{Key, Scope, recheck};
use crate::state::AppState;
use tokio::sync::OwnedSemaphorePermit;

/// Who has the turn. Others wait until it is dropped.
pub(super) struct Turn {
    /// The caller's key, as it is in the transaction; `None` for the server and its host.
    caller: Option<Key>,
    _permit: OwnedSemaphorePermit,
}

/// Begins a change of keys. Such changes wait for one another, and one that waited sees whether
/// its caller still may: another change may have revoked the caller's key meanwhile. Most of them
/// wait for their turn here, where they keep no connection from others.
pub(super) async fn begin(app: &AppState, by: &Origin) -> Result<(Tx, Turn)> {
    let permit = app.key_changes.clone().acquire_owned().await;
    let permit = permit.map_err(|_| Error::Unavailable("The server is shutting down"))?;
    let mut tx = app.db.begin().await?;
    repository::lock_installation(&mut tx).await?;
    let caller = match by.key_id() {
        Some(id) => {
            let now = app.clock.now();
            Some(recheck::still_allowed(&mut tx, id, by.ip, Scope::Admin, now).await?)
        }
        None => None,
    };
    Ok((tx, Turn { caller, _permit: permit }))
}

impl Turn {
    /// Fails with 403 when the key `after` is stronger than the caller's, unless it was `before`
    /// and is in nothing stronger than that. The error names each field that exceeds, and its
    /// limit.
    ///
    /// All fields count, not only those that changed: a scope for a key with a wider list of
    /// addresses than the caller's would be a way around that list.
    pub(super) fn refuse_stronger(&self, before: Option<&ApiKey>, after: &ApiKey) -> Result<()> {
        let Some(caller) = &self.caller else { return Ok(()) };
        let bounds = after.bounds();
        let is_no_stronger = |before: &ApiKey| {
            (before.is_active || !after.is_active)
                && bounds.excess_over(&before.bounds()).is_empty()
        };
        if before.is_some_and(is_no_stronger) {
            return Ok(());
        }
        let excess = bounds.excess_over(&caller.bounds());
        if excess.is_empty() {
            return Ok(());
        }
        let sentence = format!(
            "An API key cannot make one stronger than itself: for the key you're using, {}",
            excess.join("; ")
        );
        Err(Error::Forbidden(sentence.into()))
    }
}
