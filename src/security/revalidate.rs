//! Validates a credential a second time, later in the same request.

use super::actor::Actor;
use super::authenticate::{ADDRESS_NOT_ALLOWED, EXPIRED, INVALID};
use super::key::{Denial, Key};
use super::key_cache::KeyCache;
use super::repository;
use super::scope::Scope;
use super::session::{ENDED, SignedIn};
use crate::core::config::SessionLimits;
use crate::core::error::{Error, Result};
use crate::db::{Executor, Tx};
use chrono::{DateTime, Utc};
use std::net::IpAddr;

/// Reads the key `id` in the transaction of the operation and validates it for `ip` and `scope`.
/// Fails with 401 or 403 if the key is no longer valid.
pub async fn revalidate_in_transaction(
    tx: &mut Tx,
    id: i64,
    ip: Option<IpAddr>,
    scope: Scope,
    now: DateTime<Utc>,
) -> Result<Key> {
    let found = repository::key_by_id(tx, id).await?;
    let key = found.ok_or(Error::Unauthenticated(INVALID))?;
    key.check(now, ip).map_err(refusal)?;
    if key.scopes().allow(scope) { Ok(key) } else { Err(Error::Unauthenticated(INVALID)) }
}

/// Validates the key of `actor` after the request body arrived, which may take long. Fails with 401
/// or 403 if the key is no longer valid, and with 409 if its scopes changed.
pub async fn unchanged(keys: &KeyCache, actor: &Actor, now: DateTime<Utc>) -> Result<()> {
    let key = keys.find_by_hash(actor.credential).await?;
    let key = key.ok_or(Error::Unauthenticated(INVALID))?;
    key.check(now, Some(actor.ip)).map_err(refusal)?;
    if key.scopes() == actor.scopes() {
        return Ok(());
    }
    let sentence = "The scopes of this API key changed while the request arrived: send it again";
    Err(Error::Conflict(sentence.into()))
}

/// Validates the session of `user`. Fails with 401 if it ended since the request began.
pub async fn session(
    on: impl Into<Executor<'_>>,
    user: &SignedIn,
    limits: &SessionLimits,
    now: DateTime<Utc>,
) -> Result<()> {
    let found = repository::session_by_id(on, user.session.id, limits, now).await?;
    found.map(drop).ok_or(Error::Unauthenticated(ENDED))
}

fn refusal(denial: Denial) -> Error {
    match denial {
        Denial::Expired => Error::Unauthenticated(EXPIRED),
        Denial::Inactive | Denial::Unreadable => Error::Unauthenticated(INVALID),
        Denial::Address => Error::Forbidden(ADDRESS_NOT_ALLOWED.into()),
    }
}
