//! Rate limits, with one policy for each kind of caller.
//!
//! `limiter` counts the requests of callers, and `client` those of clients in their networks; both
//! are called where the caller is known. `key_creation` is a layer of one route, from the crate
//! tower_governor; such a layer can neither refund a request nor bound its memory, so the other
//! limits have none.

mod attempts;
mod client;
mod key_creation;
mod limiter;

pub use attempts::{Account, Attempt};
pub use key_creation::{ByKey, KeyCreationLayer};
pub use limiter::RemainingQuota;

use crate::core::config::RateLimits;
use crate::core::error::{Error, RateLimited, Result};
use crate::core::metrics::REFUSALS;
use crate::http::Client;
use crate::security::{Key, SignedIn};
use client::ClientLimiter;
use key_creation::KeyCreation;
use limiter::{CallerId, Limiter};
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

/// All rate limits. Clones share them.
#[derive(Clone)]
pub struct Throttle(Arc<Limiters>);

struct Limiters {
    enabled: bool,
    clients: ClientLimiter,
    failures: ClientLimiter,
    keys: Limiter<CallerId>,
    users: Limiter<CallerId>,
    key_creation: KeyCreation,
    registration: ClientLimiter,
    attempt_accounts: Limiter<Account>,
    attempt_clients: ClientLimiter,
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
        self.remaining(&self.0.keys, CallerId { id: key.id, own_limit: key.rate_limit })
    }

    /// Counts a request of a signed-in user. Returns their remaining quota; `None` if limits are
    /// off.
    pub fn user(&self, user: &SignedIn, client: &Client) -> Result<Option<RemainingQuota>> {
        let user = CallerId { id: user.user_id(), own_limit: None };
        self.remaining(&self.0.users, user).map_err(|limited| refuse(limited, Some(client)))
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
        limiter: &Limiter<CallerId>,
        caller: CallerId,
    ) -> Result<Option<RemainingQuota>, RateLimited> {
        if !self.0.enabled {
            return Ok(None);
        }
        limiter.check(caller).map(|counted| Some(counted.remaining))
    }
}

/// Logs and counts a refusal. Returns the error of the response.
fn refuse(limited: RateLimited, client: Option<&Client>) -> Error {
    tracing::warn!(
        target: "octopus::security",
        event = "rate_limited",
        policy = limited.policy,
        client = client.map(|client| tracing::field::display(client.ip)),
        retry_after = limited.retry_after,
        "rate limit exceeded"
    );
    metrics::counter!(REFUSALS, "reason" => "rate_limited").increment(1);
    Error::RateLimited(limited)
}
