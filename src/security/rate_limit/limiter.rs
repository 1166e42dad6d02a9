//! A rate limiter per caller, in requests per minute. Memory is bounded.
//!
//! The algorithm is GCRA (ITU-T I.371) of the crate governor: a caller may use the quota of a whole
//! minute in one burst; it refills evenly.

use crate::core::error::RateLimited;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use dashmap::DashMap;
use governor::clock::{Clock, FakeRelativeClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use std::convert::Infallible;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Maximum number of callers in memory; further callers share one quota.
pub(super) const MAX_CALLERS: usize = 100_000;
/// Without requests, a quota refills completely within this time.
const WINDOW: Duration = Duration::from_mins(1);

/// A caller whose requests are counted.
pub(super) trait Countable: Copy + Eq + Hash {
    /// Shared by all callers beyond [`MAX_CALLERS`].
    const OTHERS: Self;
}

/// The id of an API key or of a user.
impl Countable for i64 {
    /// No API key and no user has this id.
    const OTHERS: Self = 0;
}

/// The state of a caller's rate limit after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemainingQuota {
    /// The policy name in `RateLimit` and `RateLimit-Policy`.
    pub policy: &'static str,
    /// Allowed requests per minute.
    pub per_minute: u32,
    /// Requests that the caller can still send without waiting.
    pub remaining: u32,
    /// Seconds until the quota is full again, rounded up.
    pub reset: u64,
}

/// A counted request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<K> {
    /// The caller that was charged: the given one, or [`Countable::OTHERS`] if the map was full.
    pub(super) charged: K,
    pub(super) remaining: RemainingQuota,
}

/// A rate limiter with a policy name.
#[derive(Debug)]
pub(super) struct Limiter<K: Countable> {
    policy: &'static str,
    default: NonZeroU32,
    start: Instant,
    callers: DashMap<K, Bucket>,
}

/// The quota of a caller.
#[derive(Debug)]
struct Bucket {
    per_minute: NonZeroU32,
    /// The time since the start of the limiter at which the quota is full again.
    full_at: InMemoryState,
}

impl Bucket {
    fn full(per_minute: NonZeroU32) -> Self {
        Self { per_minute, full_at: InMemoryState::default() }
    }

    /// Whether the quota is full again at `now`.
    fn is_full(&self, now: Duration) -> bool {
        // The error returns the value without changing it.
        let read = |full_at: Option<Nanos>| Err::<((), Nanos), _>(full_at.unwrap_or_default());
        let full_at = self.full_at.measure_and_replace(&NotKeyed::NonKey, read);
        full_at.err().is_none_or(|full_at| full_at <= Nanos::from(now))
    }
}

impl<K: Countable> Limiter<K> {
    /// Allows each caller `default` requests per minute, unless it has its own limit.
    pub(super) fn new(policy: &'static str, default: NonZeroU32) -> Self {
        Self { policy, default, start: Instant::now(), callers: DashMap::new() }
    }

    /// Counts one request of `caller`. Fails with the time to wait when the quota is used up.
    pub(super) fn check(&self, caller: K) -> Result<Counted<K>, RateLimited> {
        self.check_with(caller, None)
    }

    /// Like [`Self::check`], with the caller's `own_limit` instead of the default. A changed limit
    /// starts with a full quota.
    pub(super) fn check_with(
        &self,
        caller: K,
        own_limit: Option<NonZeroU32>,
    ) -> Result<Counted<K>, RateLimited> {
        let per_minute = own_limit.unwrap_or(self.default);
        // Usually the caller is known, and a shared lock suffices.
        if let Some(bucket) = self.callers.get(&caller)
            && bucket.per_minute == per_minute
        {
            return self.count(caller, &bucket);
        }
        let has_room = self.callers.contains_key(&caller) || self.callers.len() < MAX_CALLERS;
        let (charged, per_minute) =
            if has_room { (caller, per_minute) } else { (K::OTHERS, self.default) };
        let mut bucket = self.callers.entry(charged).or_insert_with(|| Bucket::full(per_minute));
        if bucket.per_minute != per_minute {
            *bucket = Bucket::full(per_minute);
        }
        self.count(charged, &bucket)
    }

    fn count(&self, charged: K, bucket: &Bucket) -> Result<Counted<K>, RateLimited> {
        let per_minute = bucket.per_minute;
        // A governor limiter has one quota, and its times count from its creation. A limiter per
        // request, created at time 0 of this clock, lets callers have different quotas.
        let clock = FakeRelativeClock::default();
        let limiter: RateLimiter<NotKeyed, _, _, StateInformationMiddleware> =
            RateLimiter::new(Quota::per_minute(per_minute), Store(&bucket.full_at), clock.clone());
        clock.advance(self.start.elapsed());
        match limiter.check() {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let remaining = RemainingQuota::new(self.policy, per_minute, remaining);
                Ok(Counted { charged, remaining })
            }
            Err(refused) => {
                let wait = refused.wait_time_from(clock.now());
                Err(refusal(self.policy, per_minute, wait.as_secs()))
            }
        }
    }

    /// Returns one request to the quota of a caller that was [charged](Counted::charged).
    pub(super) fn refund(&self, charged: &K) {
        // Without an entry, the quota is full.
        let Some(bucket) = self.callers.get(charged) else { return };
        let one = Nanos::from(WINDOW / bucket.per_minute.get());
        let Ok(()) = bucket.full_at.measure_and_replace(&NotKeyed::NonKey, |full_at| {
            Ok::<_, Infallible>(((), full_at.unwrap_or_default().saturating_sub(one)))
        });
    }

    /// Removes callers whose quota is full again.
    pub(super) fn sweep(&self) {
        let now = self.start.elapsed();
        self.callers.retain(|_, bucket| !bucket.is_full(now));
        self.callers.shrink_to_fit();
    }

    /// The policy name, and the number of callers in memory.
    pub(super) fn size(&self) -> (&'static str, usize) {
        (self.policy, self.callers.len())
    }
}

/// The error for a caller that must wait for at least `whole_seconds`; rounds up.
pub(super) fn refusal(
    policy: &'static str,
    per_minute: NonZeroU32,
    whole_seconds: u64,
) -> RateLimited {
    RateLimited { policy, per_minute: per_minute.get(), retry_after: whole_seconds + 1 }
}

/// A borrowed state as a store of governor.
struct Store<'a>(&'a InMemoryState);

impl StateStore for Store<'_> {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, caller: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(caller, f)
    }
}

impl RemainingQuota {
    fn new(policy: &'static str, per_minute: NonZeroU32, remaining: u32) -> Self {
        let per_minute = per_minute.get();
        let used = u64::from(per_minute.saturating_sub(remaining));
        let reset = (used * WINDOW.as_secs()).div_ceil(u64::from(per_minute));
        Self { policy, per_minute, remaining, reset }
    }

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

    fn limiter(per_minute: u32) -> Limiter<i64> {
        Limiter::new("key", NonZeroU32::new(per_minute).unwrap())
    }

    #[test]
    fn each_caller_has_its_own_quota() {
        let limiter = limiter(10);
        for _ in 0..10 {
            limiter.check(1).unwrap();
        }
        let refused = limiter.check(1).unwrap_err();
        assert_eq!((refused.per_minute, refused.policy), (10, "key"));
        assert!((1..=6).contains(&refused.retry_after), "{refused:?}");
        limiter.check(2).unwrap();
        limiter.refund(&1);
        limiter.check(1).unwrap();
        limiter.check(1).unwrap_err();
    }

    #[test]
    fn a_caller_has_the_default_or_its_own_limit_and_gets_the_remaining_requests() {
        let limiter = limiter(60);
        let first = limiter.check(1).unwrap().remaining;
        assert_eq!((first.per_minute, first.remaining, first.reset), (60, 59, 1));
        let own = limiter.check_with(2, NonZeroU32::new(2)).unwrap().remaining;
        assert_eq!((own.per_minute, own.remaining, own.reset), (2, 1, 30));
        limiter.check_with(2, NonZeroU32::new(2)).unwrap();
        let refused = limiter.check_with(2, NonZeroU32::new(2)).unwrap_err();
        assert!((1..=30).contains(&refused.retry_after), "{refused:?}");
        assert_eq!(limiter.check(1).unwrap().remaining.remaining, 58);
    }

    #[test]
    fn a_new_limit_counts_from_the_next_request_on() {
        let limiter = limiter(60);
        limiter.check_with(1, NonZeroU32::new(1)).unwrap();
        limiter.check_with(1, NonZeroU32::new(1)).unwrap_err();
        assert_eq!(limiter.check_with(1, NonZeroU32::new(100)).unwrap().remaining.remaining, 99);
        assert_eq!(limiter.check(1).unwrap().remaining.remaining, 59);
        assert_eq!(limiter.check_with(1, NonZeroU32::new(1)).unwrap().remaining.remaining, 0);
    }

    #[test]
    fn a_sweep_removes_only_callers_with_a_full_quota() {
        let limiter = limiter(1);
        limiter.check(1).unwrap();
        limiter.check(2).unwrap();
        limiter.refund(&2);
        limiter.sweep();
        assert_eq!(limiter.size(), ("key", 1));
        limiter.check(1).unwrap_err();
        limiter.check(2).unwrap();
    }

    #[test]
    fn a_million_callers_take_bounded_memory_and_known_ones_keep_their_quota() {
        let limiter = limiter(10);
        limiter.check(-1).unwrap();
        for id in 1..1_000_000 {
            let _ = limiter.check(id);
        }
        assert!(limiter.size().1 <= MAX_CALLERS + 1, "{:?}", limiter.size());
        limiter.check(-1).unwrap();
        assert!(limiter.check(2_000_000).is_err(), "new ones share one quota");
        assert!(
            limiter.check_with(2_000_000, NonZeroU32::new(1000)).is_err(),
            "also with their own limit"
        );
    }
}
