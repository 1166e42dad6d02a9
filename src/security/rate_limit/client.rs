//! A rate limiter per client, in requests per minute. An IPv6 client is counted in three networks.
//!
//! An internet subscriber has at least a /64, and many can get a /56 or a /48. If requests were
//! counted only by /64, a /48 would have 65,536 times the quota of an IPv4 address.

use super::limiter::{Countable, Limiter};
use crate::core::error::RateLimited;
use crate::http::ClientBucket;
use std::num::NonZeroU32;

/// The prefix lengths that an IPv6 client is counted by, and the quota of each as a multiple of
/// the quota of a /64.
const NETWORKS: [(u8, u32); 3] = [(64, 1), (56, 4), (48, 16)];

impl Countable for ClientBucket {
    const OTHERS: Self = Self::Others;
}

/// A rate limiter for clients, with a policy name.
#[derive(Debug)]
pub(super) struct ClientLimiter {
    /// One limiter per entry of [`NETWORKS`]; an IPv4 address is counted only in the first.
    levels: [Limiter<ClientBucket>; NETWORKS.len()],
}

/// The buckets that counted a request, one per entry of [`NETWORKS`].
#[derive(Debug, Default)]
pub(super) struct CountedClient([Option<ClientBucket>; NETWORKS.len()]);

impl ClientLimiter {
    /// Allows each client `per_minute` requests. `policy` is the name in `RateLimit-Policy`.
    pub(super) fn new(policy: &'static str, per_minute: NonZeroU32) -> Self {
        let limiter = |(_, times): (u8, u32)| {
            let times = NonZeroU32::new(times).unwrap_or(NonZeroU32::MIN);
            Limiter::new(policy, per_minute.saturating_mul(times))
        };
        Self { levels: NETWORKS.map(limiter) }
    }

    /// Counts one request of `client` in all its networks, or in none if one of them refuses it.
    pub(super) fn check(&self, client: ClientBucket) -> Result<CountedClient, RateLimited> {
        let mut counted = CountedClient::default();
        // The widest network first: a request that it refuses takes no memory for narrower ones.
        for (level, limiter) in self.levels.iter().enumerate().rev() {
            let Some(bucket) = network(client, level) else { continue };
            match limiter.check(bucket) {
                Ok(count) => counted.0[level] = Some(count.charged),
                Err(limited) => {
                    self.refund(&counted);
                    return Err(limited);
                }
            }
        }
        Ok(counted)
    }

    /// Returns one request to the buckets that counted it.
    pub(super) fn refund(&self, counted: &CountedClient) {
        for (limiter, bucket) in self.levels.iter().zip(&counted.0) {
            if let Some(bucket) = bucket {
                limiter.refund(bucket);
            }
        }
    }

    /// Removes clients whose quota is full again.
    pub(super) fn sweep(&self) {
        self.levels.iter().for_each(Limiter::sweep);
    }

    /// The policy name, and the number of clients and networks in memory.
    pub(super) fn size(&self) -> (&'static str, usize) {
        let (policy, _) = self.levels[0].size();
        (policy, self.levels.iter().map(|level| level.size().1).sum())
    }
}

/// The bucket that counts `client` at `level`; `None` if none does.
fn network(client: ClientBucket, level: usize) -> Option<ClientBucket> {
    match client {
        ClientBucket::V6 { prefix, .. } => {
            let (length, _) = NETWORKS[level];
            let prefix = prefix & (u64::MAX << (64 - length));
            Some(ClientBucket::V6 { prefix, length })
        }
        other => (level == 0).then_some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::rate_limit::limiter::MAX_CALLERS;
    use std::net::Ipv4Addr;

    fn limiter(per_minute: u32) -> ClientLimiter {
        ClientLimiter::new("client", NonZeroU32::new(per_minute).unwrap())
    }

    fn v6(prefix: u64) -> ClientBucket {
        ClientBucket::V6 { prefix, length: 64 }
    }

    #[test]
    fn a_network_of_48_bits_has_sixteen_times_the_quota_and_one_of_56_four_times() {
        let limiter = limiter(10);
        let passed = |networks: &mut dyn Iterator<Item = u64>| {
            networks.filter(|prefix| limiter.check(v6(*prefix)).is_ok()).count()
        };
        let (one, other) = (0x2001_0db8_0001_0000, 0x2001_0db8_0002_0000);
        assert_eq!(passed(&mut (0..50).map(|_| one)), 10, "one /64");
        assert_eq!(passed(&mut (1..=255).map(|n| one + n)), 30, "the rest of its /56");
        assert_eq!(passed(&mut (1..=255).map(|n| one + (n << 8))), 120, "the rest of its /48");
        assert_eq!(passed(&mut (0..50).map(|_| other)), 10, "another /48");
    }

    #[test]
    fn a_refused_request_is_not_counted_in_wider_networks() {
        let limiter = limiter(2);
        for _ in 0..1000 {
            let _ = limiter.check(v6(1));
        }
        for prefix in 2..5 {
            limiter.check(v6(prefix)).unwrap();
            limiter.check(v6(prefix)).unwrap();
        }
        limiter.check(v6(6)).unwrap_err();
        let counted = limiter.check(v6(0x100)).unwrap();
        limiter.refund(&counted);
        for _ in 0..2 {
            limiter.check(v6(0x100)).unwrap();
        }
        limiter.check(v6(0x100)).unwrap_err();
    }

    #[test]
    fn memory_stays_bounded_and_one_large_network_takes_little_of_it() {
        let limiter = limiter(10);
        for prefix in 0..=0xffff {
            let _ = limiter.check(v6(prefix));
        }
        assert!(limiter.size().1 <= 160 + 41, "{:?}", limiter.size());
        for n in 0..400_000_u32 {
            let _ = limiter.check(v6(u64::from(n) << 16));
            let _ = limiter.check(ClientBucket::V4(Ipv4Addr::from_bits(n)));
        }
        assert!(limiter.size().1 <= 3 * (MAX_CALLERS + 1), "{:?}", limiter.size());
    }
}
