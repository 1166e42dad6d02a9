//! Rate limits, with one policy for each kind of caller.
//!
//! The limit on key creation belongs to one route and is a [`tower_governor`] layer. All other
//! limits are checked where the caller is known.

use super::attempts::{Account, Attempt, Attempts};
use super::{Caller, Key, SignedIn};
use crate::core::config::RateLimits;
use crate::core::error::{Error, RateLimited, Result};
use crate::core::metrics::REFUSALS;
use crate::http::Client;
use crate::http::client_limit::ClientLimiter;
use crate::http::quota::{KeyRateLimits, RemainingQuota};
use crate::http::rate_limit::refusal;
use axum::body::Body;
use axum::http::Request;
use axum::response::IntoResponse;
use governor::middleware::NoOpMiddleware;
use std::fmt::{self, Debug, Formatter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tower_governor::governor::{GovernorConfig, GovernorConfigBuilder};
use tower_governor::key_extractor::KeyExtractor;
use tower_governor::{GovernorError, GovernorLayer};

/// A rate limit on one route.
pub type RouteLimit<K> = GovernorLayer<K, NoOpMiddleware, Body>;

/// All rate limits. Clones share them.
#[derive(Clone)]
pub struct Throttle(Arc<Buckets>);

struct Buckets {
    enabled: bool,
    clients: ClientLimiter,
    failures: ClientLimiter,
    keys: KeyRateLimits,
    users: KeyRateLimits,
    key_creation: RouteBucket<ByKey>,
    registration: ClientLimiter,
    attempts: Attempts,
}

struct RouteBucket<K: KeyExtractor> {
    policy: &'static str,
    per_minute: NonZeroU32,
    config: Arc<GovernorConfig<K, NoOpMiddleware>>,
}

impl Debug for Throttle {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("buckets", &self.sizes()).finish_non_exhaustive()
    }
}

impl Throttle {
    /// Creates the limits with their full quota.
    pub fn new(limits: &RateLimits) -> Self {
        Self(Arc::new(Buckets {
            enabled: limits.enabled,
            failures: ClientLimiter::new("auth-failures", limits.auth_failures),
            keys: KeyRateLimits::new("key", limits.key),
            users: KeyRateLimits::new("user", limits.user),
            key_creation: RouteBucket::new("key-creation", limits.key_creation, ByKey),
            registration: ClientLimiter::new("registration", limits.registration),
            attempts: Attempts::new(limits.login, limits.login_client),
            clients: ClientLimiter::new("client", limits.ip),
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

    /// Counts a request with a valid API key. Returns its remaining quota; `None` if limits are
    /// off.
    pub fn key(&self, key: &Key, client: &Client) -> Result<Option<RemainingQuota>> {
        let remaining = self.spend(key);
        remaining.map_err(|limited| {
            log_refusal(limited, Some(client));
            Error::RateLimited(limited)
        })
    }

    /// Counts a request of a signed-in user. Returns their remaining quota; `None` if limits are
    /// off.
    pub fn user(&self, user: &SignedIn, client: &Client) -> Result<Option<RemainingQuota>> {
        if !self.0.enabled {
            return Ok(None);
        }
        self.0.users.check(user.user_id(), None).map(Some).map_err(|limited| {
            log_refusal(limited, Some(client));
            Error::RateLimited(limited)
        })
    }

    /// Counts an attempt at a password, or at a token whose account is not known yet. Call it
    /// before the expensive check.
    pub fn attempt(&self, client: &Client, account: Option<Account>) -> Result<Attempt> {
        if !self.0.enabled {
            return Ok(Attempt::UNLIMITED);
        }
        self.0.attempts.begin(client.bucket(), account).map_err(|limited| {
            log_refusal(limited, Some(client));
            Error::RateLimited(limited)
        })
    }

    /// Counts a use of a valid API key, without a log entry. Also used for keys that another
    /// service verifies.
    pub fn spend(&self, key: &Key) -> Result<Option<RemainingQuota>, RateLimited> {
        if !self.0.enabled {
            return Ok(None);
        }
        self.0.keys.check(key.id, key.rate_limit).map(Some)
    }

    /// Counts a registration by a client without a credential.
    pub fn registration(&self, client: &Client) -> Result<()> {
        self.count(&self.0.registration, client)
    }

    fn count(&self, limiter: &ClientLimiter, client: &Client) -> Result<()> {
        if !self.0.enabled {
            return Ok(());
        }
        limiter.check(client.bucket()).map(drop).map_err(|limited| {
            log_refusal(limited, Some(client));
            Error::RateLimited(limited)
        })
    }

    /// The layer for the route that creates API keys; `None` if limits are off.
    pub fn key_creation(&self) -> Option<RouteLimit<ByKey>> {
        self.0.enabled.then(|| self.0.key_creation.layer())
    }

    /// Removes callers whose quota is full again.
    pub fn sweep(&self) {
        self.0.clients.sweep();
        self.0.failures.sweep();
        self.0.keys.sweep();
        self.0.users.sweep();
        self.0.key_creation.sweep();
        self.0.registration.sweep();
        self.0.attempts.sweep();
    }

    /// Number of callers in memory for each policy.
    pub fn sizes(&self) -> [(&'static str, usize); 8] {
        let [accounts, attempt_clients] = self.0.attempts.sizes();
        let Buckets { clients, failures, keys, users, key_creation, registration, .. } = &*self.0;
        [
            clients.size(),
            failures.size(),
            (keys.policy(), keys.len()),
            (users.policy(), users.len()),
            (key_creation.policy, key_creation.config.limiter().len()),
            registration.size(),
            accounts,
            attempt_clients,
        ]
    }
}

impl<K: KeyExtractor> RouteBucket<K> {
    fn new(policy: &'static str, per_minute: NonZeroU32, key_extractor: K) -> Self {
        let config = GovernorConfigBuilder::default()
            .period(Duration::from_mins(1) / per_minute.get())
            .burst_size(per_minute.get())
            .key_extractor(key_extractor)
            .finish()
            .expect("the period and the burst size are not zero");
        Self { policy, per_minute, config: Arc::new(config) }
    }

    fn layer(&self) -> RouteLimit<K> {
        let (policy, per_minute) = (self.policy, self.per_minute);
        GovernorLayer::new(self.config.clone()).error_handler(move |error| {
            let error = match error {
                GovernorError::TooManyRequests { wait_time, .. } => {
                    let limited = refusal(policy, per_minute, wait_time);
                    log_refusal(limited, None);
                    Error::RateLimited(limited)
                }
                _ => Error::Internal("the route has no authentication layer".into()),
            };
            error.into_response()
        })
    }

    fn sweep(&self) {
        self.config.limiter().retain_recent();
        self.config.limiter().shrink_to_fit();
    }
}

fn log_refusal(limited: RateLimited, client: Option<&Client>) {
    tracing::warn!(
        target: "octopus::security",
        event = "rate_limited",
        policy = limited.policy,
        client = client.map(|client| tracing::field::display(client.ip)),
        retry_after = limited.retry_after,
        "rate limit exceeded"
    );
    metrics::counter!(REFUSALS, "reason" => "rate_limited").increment(1);
}

/// Extracts the id of the caller's API key, to count requests per key.
#[derive(Clone, Debug)]
pub struct ByKey;

impl KeyExtractor for ByKey {
    type Key = i64;

    fn extract<T>(&self, request: &Request<T>) -> Result<i64, GovernorError> {
        match request.extensions().get::<Caller>() {
            Some(Caller::Key(actor)) => Ok(actor.key_id()),
            _ => Err(GovernorError::UnableToExtractKey),
        }
    }
}
