//! Rate limits per caller, in requests per minute. Memory is bounded.
//!
//! The algorithm is GCRA (ITU-T I.371): a caller may use the quota of a whole minute in one
//! burst; it refills evenly.

use super::ClientBucket;
use crate::core::error::RateLimited;
use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock, QuantaInstant};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::{Quota, RateLimiter};
use std::convert::Infallible;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of callers in memory; further callers share one quota.
pub const MAX_CALLERS: usize = 100_000;

/// A key that requests are counted by.
pub trait LimiterKey: Hash + Eq + Clone {
    /// Shared by all callers beyond [`MAX_CALLERS`].
    const OTHERS: Self;
}

impl LimiterKey for ClientBucket {
    const OTHERS: Self = Self::Others;
}

/// A rate limiter with a policy name.
#[derive(Debug)]
pub struct Limiter<K: LimiterKey> {
    policy: &'static str,
    per_minute: NonZeroU32,
    store: Bounded<K>,
    buckets: RateLimiter<K, Bounded<K>, DefaultClock, NoOpMiddleware<QuantaInstant>>,
}

impl<K: LimiterKey> Limiter<K> {
    /// Allows each caller `per_minute` requests. `policy` is the name in `RateLimit-Policy`.
    pub fn new(policy: &'static str, per_minute: NonZeroU32) -> Self {
        let store = Bounded(Arc::new(DashMap::new()));
        let quota = Quota::per_minute(per_minute);
        let buckets = RateLimiter::new(quota, store.clone(), DefaultClock::default());
        Self { policy, per_minute, store, buckets }
    }

    /// Counts one request of `caller`. Fails with the time to wait when the quota is used up.
    pub fn check(&self, caller: &K) -> Result<(), RateLimited> {
        self.buckets.check_key(caller).map_err(|refused| {
            let wait = refused.wait_time_from(self.buckets.clock().now());
            self.refusal(wait.as_secs())
        })
    }

    /// Returns one request to `caller`'s quota.
    pub fn refund(&self, caller: &K) {
        let one = Nanos::from(Duration::from_mins(1) / self.per_minute.get());
        let Ok(()) = self.store.measure_and_replace(caller, |full_at| {
            Ok::<_, Infallible>(((), full_at.unwrap_or_default().saturating_sub(one)))
        });
    }

    /// The error for a caller that must wait for at least `whole_seconds`.
    pub fn refusal(&self, whole_seconds: u64) -> RateLimited {
        refusal(self.policy, self.per_minute, whole_seconds)
    }

    /// The key that counts `caller`: itself, or [`LimiterKey::OTHERS`] if the map is full.
    pub fn settle(&self, caller: &K) -> K {
        self.store.settle(caller)
    }

    /// Removes callers whose quota is full again.
    pub fn sweep(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }

    /// Number of callers in memory.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Returns whether no caller is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The policy name.
    pub fn policy(&self) -> &'static str {
        self.policy
    }
}

/// The error for a caller that must wait for at least `whole_seconds`; rounds up.
pub fn refusal(policy: &'static str, per_minute: NonZeroU32, whole_seconds: u64) -> RateLimited {
    RateLimited { policy, per_minute: per_minute.get(), retry_after: whole_seconds + 1 }
}

/// governor's map of callers, limited to [`MAX_CALLERS`] entries and [`LimiterKey::OTHERS`].
#[derive(Clone, Debug)]
struct Bounded<K: LimiterKey>(Arc<DashMapStateStore<K>>);

impl<K: LimiterKey> Bounded<K> {
    fn settle(&self, caller: &K) -> K {
        let has_room = self.0.contains_key(caller) || self.0.len() < MAX_CALLERS;
        if has_room { caller.clone() } else { K::OTHERS }
    }
}

impl<K: LimiterKey> StateStore for Bounded<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, caller: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(&self.settle(caller), f)
    }
}

impl<K: LimiterKey> ShrinkableKeyedStateStore<K> for Bounded<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn shrink_to_fit(&self) {
        ShrinkableKeyedStateStore::shrink_to_fit(&*self.0);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::Config;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn limiter() -> Limiter<ClientBucket> {
        let config = Config::from_variables(HashMap::new()).unwrap();
        Limiter::new("client", config.rate_limits.auth_failures)
    }

    fn client(n: u32) -> ClientBucket {
        ClientBucket::V4(Ipv4Addr::from_bits(n))
    }

    #[test]
    fn each_caller_has_its_own_quota() {
        let limiter = limiter();
        for _ in 0..10 {
            limiter.check(&client(1)).unwrap();
        }
        let refused = limiter.check(&client(1)).unwrap_err();
        assert_eq!((refused.per_minute, refused.policy), (10, "client"));
        assert!((1..=6).contains(&refused.retry_after), "{refused:?}");
        limiter.check(&client(2)).unwrap();
    }

    #[test]
    fn a_million_clients_take_bounded_memory_and_known_ones_keep_their_quota() {
        let limiter = limiter();
        limiter.check(&client(0)).unwrap();
        for n in 1..1_000_000 {
            let _ = limiter.check(&client(n));
        }
        assert!(limiter.len() <= MAX_CALLERS + 1, "{}", limiter.len());
        limiter.check(&client(0)).unwrap();
        assert!(limiter.check(&client(2_000_000)).is_err(), "new ones share one bucket");
    }
}
