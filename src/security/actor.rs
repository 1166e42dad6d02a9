//! Who is behind a request.

use super::{AddressList, Scopes};
use std::net::IpAddr;
use std::sync::Arc;

/// Somebody with a good credential.
#[derive(Clone, Debug)]
pub struct Actor {
    pub(super) key: Arc<Key>,
    pub(super) ip: IpAddr,
}

/// The key an [`Actor`] showed, as far as authorisation needs it.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: i64,
    pub(super) scopes: Scopes,
    pub(super) addresses: Addresses,
}

/// Where a key may be used from.
#[derive(Debug)]
pub(super) enum Addresses {
    All,
    Listed(AddressList),
    None,
}

impl Addresses {
    pub(super) fn allow(&self, ip: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Listed(list) => list.contains(ip),
            Self::None => false,
        }
    }
}

impl Actor {
    /// The id of its key.
    pub fn key_id(&self) -> i64 {
        self.key.id
    }

    /// What it may do.
    pub fn scopes(&self) -> Scopes {
        self.key.scopes
    }

    /// Where it calls from.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }
}

/// What authentication leaves on a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A good credential.
    Known(Actor),
    /// None, or a bad one; the text is the 401's. Routes open to everybody go on all the same.
    Unknown(&'static str),
}
