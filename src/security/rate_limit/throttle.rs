//! All rate limits of a server.

use super::account::Account;
use super::client::ClientLimiter;
use super::key_creation::{KeyCreation, KeyCreationLayer};
use super::limiter::{Limiter, RemainingQuota};
use super::refusal::refuse;
use crate::core::config::RateLimits;
use crate::core::error::{RateLimited, Result};
use crate::http::Client;
use crate::security::key::Key;
use crate::security::session::SignedIn;
use std::fmt::{self, Debug, Formatter};
use std::num::NonZeroU32;
use std::sync::Arc;

/// All rate limits. Clones share them.
#[derive(Clone)]
pub struct Throttle(pub(super) Arc<Limiters>);

pub(super) struct Limiters {
    pub(super) enabled: bool,
    clients: ClientLimiter,
    failures: ClientLimiter,
    keys: Limiter<i64>,
    users: Limiter<i64>,
    key_creation: KeyCreation,
    registration: ClientLimiter,
    pub(super) attempt_accounts: Limiter<Account>,
    pub(super) attempt_clients: ClientLimiter,
}

impl Debug for Throttle {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("callers", &self.sizes()).finish_non_exhaustive()
    }
}

impl Throttle {
    /// Creates the limits with their full quota.
    pub fn new(limits: &RateLimits) -> Self {
        Self(Arc::new(Limiters {
            enabled: limits.enabled,
            clients: ClientLimiter::new("client", limits.ip),
            failures: ClientLimiter::new("auth-failures", limits.auth_failures),
            keys: Limiter::new("key", limits.key),
            users: Limiter::new("user", limits.user),
            key_creation: KeyCreation::new(limits.key_creation),
            registration: ClientLimiter::new("registration", limits.registration),
            attempt_accounts: Limiter::new("login", limits.login),
            attempt_clients: ClientLimiter::new("login-client", limits.login_client),
        }))
    }

    /// Counts a request without a credential.
    pub fn anonymous(&self, client: &Client) -> Result<()> {
        self.count(&self.0.clients, client)
    }

    /// Counts a request with an invalid credential.
    pub fn failure(&self, client: &Client) -> Result<()> {
        self.count(&self.0.failures, client)?;
        self.anonymous(client)
    }

    /// Counts a registration by a client without a credential.
    pub fn registration(&self, client: &Client) -> Result<()> {
        self.count(&self.0.registration, client)
    }

    /// Counts a request with a valid API key. Returns its remaining quota; `None` if limits are
    /// off.
    pub fn key(&self, key: &Key, client: &Client) -> Result<Option<RemainingQuota>> {
        self.spend(key).map_err(|limited| refuse(limited, Some(client)))
    }

    /// Counts a use of a valid API key, without a log entry. Also used for keys that another
    /// service verifies.
    pub fn spend(&self, key: &Key) -> Result<Option<RemainingQuota>, RateLimited> {
        self.remaining(&self.0.keys, key.id, key.rate_limit)
    }

    /// Counts a request of a signed-in user. Returns their remaining quota; `None` if limits are
    /// off.
    pub fn user(&self, user: &SignedIn, client: &Client) -> Result<Option<RemainingQuota>> {
        let remaining = self.remaining(&self.0.users, user.user_id(), None);
        remaining.map_err(|limited| refuse(limited, Some(client)))
    }

    /// The layer for the route that creates API keys; `None` if limits are off.
    pub fn key_creation(&self) -> Option<KeyCreationLayer> {
        self.0.enabled.then(|| self.0.key_creation.layer())
    }

    /// Removes callers whose quota is full again.
    pub fn sweep(&self) {
        let limiters = &*self.0;
        limiters.clients.sweep();
        limiters.failures.sweep();
        limiters.keys.sweep();
        limiters.users.sweep();
        limiters.key_creation.sweep();
        limiters.registration.sweep();
        limiters.attempt_accounts.sweep();
        limiters.attempt_clients.sweep();
    }

    /// Number of callers in memory for each policy.
    pub fn sizes(&self) -> [(&'static str, usize); 8] {
        let limiters = &*self.0;
        [
            limiters.clients.size(),
            limiters.failures.size(),
            limiters.keys.size(),
            limiters.users.size(),
            limiters.key_creation.size(),
            limiters.registration.size(),
            limiters.attempt_accounts.size(),
            limiters.attempt_clients.size(),
        ]
    }

    fn count(&self, limiter: &ClientLimiter, client: &Client) -> Result<()> {
        if !self.0.enabled {
            return Ok(());
        }
        let counted = limiter.check(client.bucket());
        counted.map(drop).map_err(|limited| refuse(limited, Some(client)))
    }

    fn remaining(
        &self,
        limiter: &Limiter<i64>,
        caller: i64,
        own_limit: Option<NonZeroU32>,
    ) -> Result<Option<RemainingQuota>, RateLimited> {
        if !self.0.enabled {
            return Ok(None);
        }
        limiter.check_with(caller, own_limit).map(|counted| Some(counted.remaining))
    }
}
