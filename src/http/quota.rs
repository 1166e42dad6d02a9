//! Rate limits per API key, in requests per minute. A key can override the default limit. Memory is
//! bounded. The algorithm is the one of [`rate_limit`](super::rate_limit).

use super::rate_limit::{MAX_CALLERS, refusal};
use crate::core::error::RateLimited;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Without requests, a quota refills completely within this time.
const WINDOW: Duration = Duration::from_mins(1);
/// Bucket id that keys share when the map is full. No API key has this id.
const OTHERS: i64 = 0;

type Gcra = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// The state of a key's rate limit after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemainingQuota {
    /// The policy name in `RateLimit` and `RateLimit-Policy`.
    pub policy: &'static str,
    /// Allowed requests per minute.
    pub per_minute: u32,
    /// Requests that the key can still send without waiting.
    pub remaining: u32,
    /// Seconds until the quota is full again, rounded up.
    pub reset: u64,
}

/// Rate limits of API keys, by key id.
#[derive(Debug)]
pub struct KeyRateLimits {
    policy: &'static str,
    default: NonZeroU32,
    buckets: DashMap<i64, Bucket>,
    start: Instant,
}

#[derive(Debug)]
struct Bucket {
    per_minute: NonZeroU32,
    limiter: Gcra,
    /// Time of its last request, in whole seconds since `start`.
    used: AtomicU64,
}

impl KeyRateLimits {
    /// Allows each key `default` requests per minute, unless the key has its own limit.
    pub fn new(policy: &'static str, default: NonZeroU32) -> Self {
        Self { policy, default, buckets: DashMap::new(), start: Instant::now() }
    }

    /// Counts one request of key `id`, whose limit is `own` or else the default. Fails with the
    /// time to wait when the quota is used up.
    pub fn check(&self, id: i64, own: Option<NonZeroU32>) -> Result<RemainingQuota, RateLimited> {
        let per_minute = own.unwrap_or(self.default);
        let now = self.start.elapsed().as_secs();
        if let Some(bucket) = self.buckets.get(&id)
            && bucket.per_minute == per_minute
        {
            return bucket.check(self.policy, now);
        }
        let has_room = self.buckets.contains_key(&id) || self.buckets.len() < MAX_CALLERS;
        let (id, per_minute) = if has_room { (id, per_minute) } else { (OTHERS, self.default) };
        let mut bucket = self.buckets.entry(id).or_insert_with(|| Bucket::new(per_minute));
        if bucket.per_minute != per_minute {
            *bucket = Bucket::new(per_minute);
        }
        bucket.check(self.policy, now)
    }

    /// Removes keys whose quota is full again.
    pub fn sweep(&self) {
        let now = self.start.elapsed().as_secs();
        let is_recent = |bucket: &Bucket| {
            now.saturating_sub(bucket.used.load(Ordering::Relaxed)) <= WINDOW.as_secs()
        };
        self.buckets.retain(|_, bucket| is_recent(bucket));
        self.buckets.shrink_to_fit();
    }

    /// Number of keys in memory.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Returns whether no key is in memory.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The policy name.
    pub fn policy(&self) -> &'static str {
        self.policy
    }
}

impl Bucket {
    fn new(per_minute: NonZeroU32) -> Self {
        let limiter = RateLimiter::direct(Quota::per_minute(per_minute))
            .with_middleware::<StateInformationMiddleware>();
        Self { per_minute, limiter, used: AtomicU64::new(0) }
    }

    fn check(&self, policy: &'static str, now: u64) -> Result<RemainingQuota, RateLimited> {
        self.used.store(now, Ordering::Relaxed);
        match self.limiter.check() {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let per_minute = self.per_minute.get();
                let used = u64::from(per_minute.saturating_sub(remaining));
                let reset = (used * WINDOW.as_secs()).div_ceil(u64::from(per_minute));
                Ok(RemainingQuota { policy, per_minute, remaining, reset })
            }
            Err(refused) => {
                let wait = refused.wait_time_from(self.limiter.clock().now());
                Err(refusal(policy, self.per_minute, wait.as_secs()))
            }
        }
    }
}

impl RemainingQuota {
    /// Adds the headers `RateLimit` and `RateLimit-Policy` unless the response already reports
    /// another limit. Format: draft-ietf-httpapi-ratelimit-headers-10.
    pub fn write_headers(self, headers: &mut HeaderMap) {
        let Self { policy, per_minute, remaining, reset } = self;
        let fields = [
            ("ratelimit", format!(r#""{policy}";r={remaining};t={reset}"#)),
            ("ratelimit-policy", format!(r#""{policy}";q={per_minute};w=60"#)),
        ];
        for (name, text) in fields {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.entry(HeaderName::from_static(name)).or_insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_minute(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn a_key_has_the_default_or_its_own_limit_and_gets_the_remaining_requests() {
        let quotas = KeyRateLimits::new("key", per_minute(60));
        let first = quotas.check(1, None).unwrap();
        assert_eq!((first.per_minute, first.remaining, first.reset), (60, 59, 1));
        let own = quotas.check(2, Some(per_minute(2))).unwrap();
        assert_eq!((own.per_minute, own.remaining, own.reset), (2, 1, 30));
        quotas.check(2, Some(per_minute(2))).unwrap();
        let refused = quotas.check(2, Some(per_minute(2))).unwrap_err();
        assert!((1..=30).contains(&refused.retry_after), "{refused:?}");
        assert_eq!(quotas.check(1, None).unwrap().remaining, 58);
    }

    #[test]
    fn a_new_limit_counts_from_the_next_request_on() {
        let quotas = KeyRateLimits::new("key", per_minute(60));
        quotas.check(1, Some(per_minute(1))).unwrap();
        quotas.check(1, Some(per_minute(1))).unwrap_err();
        assert_eq!(quotas.check(1, Some(per_minute(100))).unwrap().remaining, 99);
        assert_eq!(quotas.check(1, None).unwrap().remaining, 59);
    }

    #[test]
    fn a_million_keys_take_bounded_memory() {
        let quotas = KeyRateLimits::new("key", per_minute(60));
        for id in 1..1_000_000 {
            let _ = quotas.check(id, None);
        }
        assert!(quotas.len() <= MAX_CALLERS + 1, "{}", quotas.len());
    }
}
