//! Credentials that are used without being shown again: by tickets that stand for them, and by
//! answers that go on for long.

use super::authenticate::Credentials;
use super::secret::Hash;
use super::{Access, Actor, Caller, LoggedIn, session};
use crate::core::error::Result;
use crate::db::{On, query};
use crate::http::RequestId;
use chrono::{DateTime, Utc};
use std::net::IpAddr;
use std::sync::Arc;

/// Which credential it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialId {
    /// The key with this id.
    Key(i64),
    /// The session with this id.
    Session(i64),
}

impl CredentialId {
    /// The one that gives this access.
    pub fn of(access: &Access) -> Self {
        match access {
            Access::Key(actor) => Self::Key(actor.key_id()),
            Access::User(user) => Self::Session(user.session().id),
        }
    }
}

/// Who uses the credential `id` from `ip` in this request; `None` when it is not good, or not
/// from there.
pub async fn find(
    known: Credentials<'_>,
    id: CredentialId,
    ip: IpAddr,
    request_id: RequestId,
    now: DateTime<Utc>,
) -> Result<Option<Caller>> {
    match id {
        CredentialId::Key(id) => match hash_of(known.db, id).await? {
            Some(hash) => key(known, hash, ip, request_id, now).await,
            None => Ok(None),
        },
        CredentialId::Session(id) => {
            let found = session::find_by_id(known.db, id, known.sessions, now).await?;
            Ok(found.map(|session| {
                Caller::LoggedIn(LoggedIn { session: Arc::new(session), ip, request_id })
            }))
        }
    }
}

/// Whoever has this `access`, as they are at `now`; `None` when their credential is not good any
/// more.
pub async fn again(
    known: Credentials<'_>,
    access: &Access,
    now: DateTime<Utc>,
) -> Result<Option<Caller>> {
    match access {
        Access::Key(actor) => {
            key(known, actor.credential, actor.ip, actor.request_id.clone(), now).await
        }
        Access::User(user) => {
            let id = CredentialId::of(access);
            find(known, id, user.ip, user.request_id.clone(), now).await
        }
    }
}

async fn key(
    known: Credentials<'_>,
    credential: Hash,
    ip: IpAddr,
    request_id: RequestId,
    now: DateTime<Utc>,
) -> Result<Option<Caller>> {
    let found = known.keys.find_by_hash(credential).await?;
    let good = found.filter(|key| key.check(now, Some(ip)).is_ok());
    Ok(good.map(|key| Caller::Known(Actor { key, credential, ip, request_id })))
}

/// What the key `id` is found by.
async fn hash_of(on: impl Into<On<'_>>, id: i64) -> sqlx::Result<Option<Hash>> {
    const SQL: &str = "SELECT key_hash FROM api_keys WHERE id = $1";
    let row: Option<(Vec<u8>,)> = query(on, SQL).bind(id).optional().await?;
    Ok(row.and_then(|(hash,)| hash.try_into().ok()))
}
