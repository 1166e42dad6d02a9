//! Who is behind a request.

use super::secret::Hash;
use super::{Key, LoggedIn, Scopes};
use crate::http::RequestId;
use std::net::IpAddr;
use std::sync::Arc;

/// Somebody with a good key.
#[derive(Clone, Debug)]
pub struct Actor {
    pub(super) key: Arc<Key>,
    pub(super) credential: Hash,
    pub(super) ip: IpAddr,
    pub(super) request_id: RequestId,
}

impl Actor {
    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The id of its key.
    pub fn key_id(&self) -> i64 {
        self.key.id
    }

    /// The caller, as told apart from others by what they send again.
    pub fn credential(&self) -> String {
        format!("key:{}", self.key.id)
    }

    /// The name of its key.
    pub fn key_name(&self) -> Arc<str> {
        self.key.name.clone()
    }

    /// What it may do.
    pub fn scopes(&self) -> Scopes {
        self.key.scopes()
    }

    /// Where it calls from.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// In which request.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }
}

/// What authentication leaves on a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A good key.
    Known(Actor),
    /// A good session.
    LoggedIn(LoggedIn),
    /// None, or a bad one; the text is the 401's. Routes open to everybody go on all the same.
    Unknown(&'static str),
}
