//! Serialization and authorization of key changes: one change at a time, by a caller that is still
//! authorized and that cannot create a key stronger than its own.

use super::super::model::ApiKey;
use super::super::repository;
use crate::audit::Origin;
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::security::{Key, Scope, revalidate};
use crate::state::AppState;
use tokio::sync::OwnedSemaphorePermit;

/// Exclusive permission to change keys. Other changes wait until it is dropped.
pub(crate) struct KeyChangeLock {
    /// The caller's key as read in the transaction; `None` for the server and the command line.
    caller: Option<Key>,
    _permit: OwnedSemaphorePermit,
}

/// Begins a change of keys. Changes run one after the other. The caller's key is checked again in
/// the transaction, because an earlier change may have revoked it. Waiting changes are limited by a
/// semaphore, so that most of them hold no database connection.
pub(super) async fn begin(app: &AppState, by: &Origin) -> Result<(Tx, KeyChangeLock)> {
    let permit = app.key_changes.clone().acquire_owned().await;
    let permit = permit.map_err(|_| Error::Unavailable("The server is shutting down"))?;
    let mut tx = app.db.begin().await?;
    repository::lock_installation(&mut tx).await?;
    let caller = match by.key_id() {
        Some(id) => {
            let now = app.clock.now();
            Some(
                revalidate::revalidate_in_transaction(&mut tx, id, by.ip, Scope::Admin, now)
                    .await?,
            )
        }
        None => None,
    };
    Ok((tx, KeyChangeLock { caller, _permit: permit }))
}

impl KeyChangeLock {
    /// Fails with 403 if the key `after` is stronger than the caller's, unless it is no stronger
    /// than it was `before`. The error gives each field that exceeds its limit.
    ///
    /// All fields count, not only changed ones: adding a scope to a key that allows more addresses
    /// than the caller's key would bypass the caller's address list.
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
            "An API key cannot create or change a key to be stronger than itself: for the key \
             you're using, {}",
            excess.join("; ")
        );
        Err(Error::Forbidden(sentence.into()))
    }
}
