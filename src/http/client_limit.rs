//! A limit of requests a minute for each client, which for IPv6 is a limit for each of three networks.
//!
//! One subscriber has a /64 at least, and many get a /56 or a /48 for the asking. Counted by /64 alone, a
//! /48 would have 65,536 times the allowance of an IPv4 address.

use super::ClientBucket;
use super::rate_limit::Limiter;
use crate::core::error::RateLimited;
use std::num::NonZeroU32;

/// The lengths of the networks an IPv6 client is counted in, and how many times the allowance of a /64
/// each has.
const NETWORKS: [(u8, u32); 3] = [(64, 1), (56, 4), (48, 16)];

/// A limit with a name, for clients.
#[derive(Debug)]
pub struct ClientLimiter {
    /// By the networks of [`NETWORKS`]; an IPv4 address is counted by the first alone.
    levels: [Limiter<ClientBucket>; NETWORKS.len()],
}

/// Where a request was counted.
#[derive(Debug, Default)]
pub struct Counted([Option<ClientBucket>; NETWORKS.len()]);

impl ClientLimiter {
    /// Allows each client `per_minute` requests; `policy` is its name in `RateLimit-Policy`.
    pub fn new(policy: &'static str, per_minute: NonZeroU32) -> Self {
        let limiter = |(_, times): (u8, u32)| {
            let times = NonZeroU32::new(times).unwrap_or(NonZeroU32::MIN);
            Limiter::new(policy, per_minute.saturating_mul(times))
        };
        Self { levels: NETWORKS.map(limiter) }
    }

    /// Takes one request off the allowance of `client` and its networks, or of none of them.
    pub fn check(&self, client: ClientBucket) -> Result<Counted, RateLimited> {
        let mut counted = Counted::default();
        // The widest network first: what it refuses takes no memory for networks within it.
        for (level, limiter) in self.levels.iter().enumerate().rev() {
            let Some(bucket) = network(client, level) else { continue };
            // As it is counted now, so that the same one is given back.
            let bucket = limiter.settle(&bucket);
            if let Err(limited) = limiter.check(&bucket) {
                self.give_back(&counted);
                return Err(limited);
            }
            counted.0[level] = Some(bucket);
        }
        Ok(counted)
    }

    /// Puts one request back where it was counted.
    pub fn give_back(&self, counted: &Counted) {
        for (limiter, bucket) in self.levels.iter().zip(&counted.0) {
            if let Some(bucket) = bucket {
                limiter.give_back(bucket);
            }
        }
    }

    /// Forgets clients whose allowance is whole again.
    pub fn sweep(&self) {
        self.levels.iter().for_each(Limiter::sweep);
    }

    /// The limit's name, and how many clients and networks are remembered now.
    pub fn size(&self) -> (&'static str, usize) {
        (self.levels[0].policy(), self.levels.iter().map(Limiter::len).sum())
    }
}

/// What `client` is counted by at a level, if it is at that level.
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
    use crate::http::rate_limit::MAX_CALLERS;
    use std::net::Ipv4Addr;

    fn limiter(per_minute: u32) -> ClientLimiter {
        ClientLimiter::new("client", NonZeroU32::new(per_minute).unwrap())
    }

    fn v6(prefix: u64) -> ClientBucket {
        ClientBucket::V6 { prefix, length: 64 }
    }

    #[test]
    fn a_network_of_48_bits_has_sixteen_times_the_allowance_and_one_of_56_four_times() {
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
    fn what_one_network_is_refused_takes_nothing_off_the_wider_ones() {
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
        limiter.give_back(&counted);
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
