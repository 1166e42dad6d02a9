//! What several operations on API keys share: insertion, commit and the properties of a stored key.

use super::super::model::{ApiKey, CreatedApiKey, NewApiKey};
use super::super::repository::{self, StoredSecret};
use super::change_lock::KeyChangeLock;
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::security::secret::{SecretHash, TokenKind, display_prefix};
use crate::state::AppState;
use chrono::{DateTime, Utc};
use std::num::NonZeroU32;

pub(super) const NOT_FOUND: Error = Error::NotFound("API key");

/// Commits a change of key `id` and invalidates its cache entry.
pub(super) async fn commit(app: &AppState, tx: Tx, id: i64) -> Result<()> {
    let committed = tx.commit().await;
    // A commit that returned an error may still have taken effect.
    app.keys.changed(id);
    Ok(committed?)
}

/// A new key in a transaction that is still open. Dropping it creates nothing.
pub struct UncommittedKey {
    created: CreatedApiKey,
    tx: Tx,
    /// The key that the new one replaces.
    replaced: Option<i64>,
    /// Until the commit, no other change of keys runs.
    _change_lock: Option<KeyChangeLock>,
}

impl UncommittedKey {
    pub(crate) fn new(
        created: CreatedApiKey,
        tx: Tx,
        replaced: Option<i64>,
        change_lock: Option<KeyChangeLock>,
    ) -> Self {
        Self { created, tx, replaced, _change_lock: change_lock }
    }

    /// The key and its secret, which does not work before the commit.
    #[must_use]
    pub fn created(&self) -> &CreatedApiKey {
        &self.created
    }

    /// Commits the key. Fails with database errors.
    pub async fn commit(self, app: &AppState) -> Result<CreatedApiKey> {
        match self.replaced {
            Some(id) => commit(app, self.tx, id).await?,
            None => self.tx.commit().await?,
        }
        Ok(self.created)
    }
}

/// Generates a secret and inserts its key. The caller authorizes the key.
pub(crate) async fn insert(
    tx: &mut Tx,
    new: &NewApiKey,
    rotated_from: Option<&ApiKey>,
    now: DateTime<Utc>,
) -> Result<CreatedApiKey> {
    let key = TokenKind::ApiKey.generate(&mut rand::rng());
    let (hash, prefix) = (SecretHash::of(key.expose()), display_prefix(key.expose()));
    let stored = StoredSecret { hash, prefix: &prefix };
    let api_key = repository::insert(tx, stored, new, rotated_from, now).await?;
    Ok(CreatedApiKey { api_key, key })
}

/// Why `key` can never become valid again; `None` if it can.
pub(super) fn ended(key: &ApiKey, now: DateTime<Utc>) -> Option<&'static str> {
    if key.rotated_at.is_some() {
        Some("was rotated")
    } else if key.expires_at.is_some_and(|end| end.0 <= now) {
        Some("has expired")
    } else {
        None
    }
}

/// The properties that a rotated key passes on. Fails with 409 if one of them cannot be read.
pub(super) fn same_properties(key: &ApiKey) -> Result<NewApiKey> {
    let unreadable = |what| {
        let sentence =
            format!("The stored {what} of this API key cannot be read: set a new value first");
        Error::Conflict(sentence.into())
    };
    let list = key.allowed_ips.as_deref().map(str::parse).transpose();
    let rate_limit = key.rate_limit_per_minute.and_then(|n| u32::try_from(n).ok());
    Ok(NewApiKey {
        name: key.name.clone(),
        description: key.description.clone(),
        scopes: key.scopes.parse().map_err(|_| unreadable("scopes"))?,
        expires_at: key.expires_at.map(|end| end.0),
        allowed_ips: list.map_err(|_| unreadable("allowed_ips"))?,
        rate_limit: rate_limit.and_then(NonZeroU32::new),
    })
}
