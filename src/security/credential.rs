//! Authentication without a presented secret: for tickets that stand for a credential, and for the
//! periodic check of event streams.

use super::access::Access;
use super::actor::{Actor, Caller};
use super::authenticate::Credentials;
use super::repository;
use super::secret::SecretHash;
use super::session::SignedIn;
use crate::core::error::Result;
use crate::http::RequestId;
use chrono::{DateTime, Utc};
use std::net::IpAddr;
use std::sync::Arc;

/// Identifies a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialId {
    /// The API key with this id.
    Key(i64),
    /// The session with this id.
    Session(i64),
}

impl CredentialId {
    /// The credential behind `access`.
    pub fn of(access: &Access) -> Self {
        match access {
            Access::Key(actor) => Self::Key(actor.key_id()),
            Access::User(user) => Self::Session(user.session().id),
        }
    }
}

/// Authenticates a request by the credential `id`, from `ip`; `None` if the credential is not valid
/// or not allowed from `ip`.
pub async fn find(
    known: Credentials<'_>,
    id: CredentialId,
    ip: IpAddr,
    request_id: RequestId,
    now: DateTime<Utc>,
) -> Result<Option<Caller>> {
    match id {
        CredentialId::Key(id) => match repository::hash_of_key(known.db, id).await? {
            Some(hash) => key(known, hash, ip, request_id, now).await,
            None => Ok(None),
        },
        CredentialId::Session(id) => {
            let found = repository::session_by_id(known.db, id, known.sessions, now).await?;
            Ok(found.map(|session| {
                Caller::SignedIn(SignedIn { session: Arc::new(session), ip, request_id })
            }))
        }
    }
}

/// Authenticates `access` again at `now`; `None` if its credential is no longer valid.
pub async fn reauthenticate(
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
    credential: SecretHash,
    ip: IpAddr,
    request_id: RequestId,
    now: DateTime<Utc>,
) -> Result<Option<Caller>> {
    let found = known.keys.find_by_hash(credential).await?;
    let valid = found.filter(|key| key.check(now, Some(ip)).is_ok());
    Ok(valid.map(|key| Caller::Key(Actor { key, credential, ip, request_id })))
}
