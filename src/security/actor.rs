//! The authenticated caller of a request.

use super::key::Key;
use super::scope::Scopes;
use super::secret::SecretHash;
use super::session::SignedIn;
use crate::http::RequestId;
use std::net::IpAddr;
use std::sync::Arc;

/// A caller authenticated by an API key.
#[derive(Clone, Debug)]
pub struct Actor {
    pub(super) key: Arc<Key>,
    pub(super) credential: SecretHash,
    pub(super) ip: IpAddr,
    pub(super) request_id: RequestId,
}

impl Actor {
    /// The API key of the caller.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The id of the API key.
    pub fn key_id(&self) -> i64 {
        self.key.id
    }

    /// The identity that idempotency records are stored under.
    pub fn credential(&self) -> String {
        format!("key:{}", self.key.id)
    }

    /// The name of the API key.
    pub fn key_name(&self) -> Arc<str> {
        self.key.name.clone()
    }

    /// The scopes of the API key.
    pub fn scopes(&self) -> Scopes {
        self.key.scopes()
    }

    /// The client's IP address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The id of the request.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }
}

/// The result of authentication, stored in the request's extensions.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A valid API key.
    Key(Actor),
    /// A valid session.
    SignedIn(SignedIn),
    /// No credential, or an invalid one, with the `detail` of the 401. Public routes accept this
    /// caller.
    Anonymous(&'static str),
}
