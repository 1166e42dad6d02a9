//! Validates an API key a second time, later in the same request.

use super::authenticate::{EXPIRED, INVALID};
use super::key::{KeyRow, columns};
use super::key_cache::KeyCache;
use super::{Actor, Denial, Key, Scope};
use crate::core::error::{Error, Result};
use crate::db::{Tx, query};
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
    const SQL: &str = concat!("SELECT ", columns!(), " FROM api_keys WHERE id = $1");
    let row: Option<KeyRow> = query(tx, SQL).bind(id).optional().await?;
    let key = row.map(Key::from).ok_or(Error::Unauthenticated(INVALID))?;
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

fn refusal(denial: Denial) -> Error {
    match denial {
        Denial::Expired => Error::Unauthenticated(EXPIRED),
        Denial::Inactive | Denial::Unreadable => Error::Unauthenticated(INVALID),
        Denial::Address => Error::Forbidden(super::authenticate::ADDRESS_NOT_ALLOWED.into()),
    }
}
