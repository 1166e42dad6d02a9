//! Asks once more whether a key is still as good as when its request began.

use super::authenticate::{EXPIRED, INVALID};
use super::key::{KeyRow, columns};
use super::keys::Keys;
use super::{Actor, Denial, Key, Scope};
use crate::core::error::{Error, Result};
use crate::db::{Tx, query};
use chrono::{DateTime, Utc};
use std::net::IpAddr;

/// The key `id`, read in the transaction of what its holder at `ip` is about to do. Fails with 401
/// or 403 when it was good as the request began, and is no more.
pub async fn still_allowed(
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

/// Fails when the key of `actor` was changed while the body of its request arrived, which may take
/// long.
pub async fn unchanged(keys: &Keys, actor: &Actor, now: DateTime<Utc>) -> Result<()> {
    let key = keys.find_by_hash(actor.credential).await?;
    let key = key.ok_or(Error::Unauthenticated(INVALID))?;
    key.check(now, Some(actor.ip)).map_err(refusal)?;
    if key.scopes() == actor.scopes() {
        return Ok(());
    }
    let sentence =
        "The scopes of this API key were changed while the request arrived: send it again";
    Err(Error::Conflict(sentence.into()))
}

fn refusal(denial: Denial) -> Error {
    match denial {
        Denial::Expired => Error::Unauthenticated(EXPIRED),
        Denial::Inactive | Denial::Unreadable => Error::Unauthenticated(INVALID),
        Denial::Address => Error::Forbidden(super::authenticate::ELSEWHERE.into()),
    }
}
