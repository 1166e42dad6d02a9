//! Counts refused credentials for the audit trail, in memory that an attacker cannot make grow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Most addresses and reasons told apart at a time; the rest are counted together.
const MAX_ROWS: usize = 100;

/// Credentials refused since the last [`Failures::take`]. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Failures(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    told_apart: HashMap<(IpAddr, &'static str), u64>,
    others: u64,
}

/// Credentials that were refused for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where they came from; `None` for all that were not told apart.
    pub ip: Option<IpAddr>,
    /// Why they were refused.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

impl Failures {
    /// Counts a refusal of a credential from `ip`.
    pub fn note(&self, ip: IpAddr, reason: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        let is_full = counts.told_apart.len() >= MAX_ROWS;
        match counts.told_apart.get_mut(&(ip, reason)) {
            Some(count) => *count += 1,
            None if is_full => counts.others += 1,
            None => drop(counts.told_apart.insert((ip, reason), 1)),
        }
    }

    /// Counts again what could not be written.
    pub fn put_back(&self, failures: &[Failure]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Failure { ip, reason, count } in failures {
            let known = counts.told_apart.len() < MAX_ROWS;
            match ip.filter(|_| known) {
                Some(ip) => *counts.told_apart.entry((ip, reason)).or_default() += count,
                None => counts.others += count,
            }
        }
    }

    /// What was counted, by address; begins anew.
    pub fn take(&self) -> Vec<Failure> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let told_apart = counts.told_apart.into_iter();
        let mut failures: Vec<_> = told_apart
            .map(|((ip, reason), count)| Failure { ip: Some(ip), reason, count })
            .collect();
        failures.sort_unstable_by_key(|failure| (failure.ip, failure.reason));
        if counts.others > 0 {
            failures.push(Failure { ip: None, reason: "others", count: counts.others });
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_million_addresses_become_a_hundred_rows_and_one_for_the_others() {
        let failures = Failures::default();
        for n in 0..1_000_000 {
            failures.note(Ipv4Addr::from_bits(n % 500_000).into(), "key_invalid");
        }
        let rows = failures.take();
        assert_eq!(rows.len(), 101);
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 1_000_000);
        assert_eq!(rows[100], Failure { ip: None, reason: "others", count: 999_800 });
        assert!(failures.take().is_empty());
    }
}
