//! Counts security events for the audit log in a bounded amount of memory.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

/// Maximum number of address and subject pairs with a counter of their own. Events of further pairs
/// share one counter.
const MAX_COUNTERS: usize = 100;

/// Counters of the events since the last [`Tally::take`]. Clones share them.
#[derive(Clone, Debug)]
pub struct Tally<K>(Arc<Mutex<Counts<K>>>);

#[derive(Debug)]
struct Counts<K> {
    separate: HashMap<(IpAddr, K), u64>,
    others: u64,
}

/// The number of events from one address about one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<K> {
    /// The address and the subject; `None` for the shared counter.
    pub of: Option<(IpAddr, K)>,
    /// Number of events.
    pub count: u64,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { separate: HashMap::new(), others: 0 }
    }
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Copy + Eq + Hash + Ord> Tally<K> {
    /// Counts one event from `ip`.
    pub fn note(&self, ip: IpAddr, subject: K) {
        self.add(&[Counted { of: Some((ip, subject)), count: 1 }]);
    }

    /// Adds `events` to the counters. A caller that fails to write taken counts adds them back.
    pub fn add(&self, events: &[Counted<K>]) {
        let mut counts = self.0.lock();
        let counts = &mut *counts;
        for Counted { of, count } in events {
            let has_room = counts.separate.len() < MAX_COUNTERS;
            match of.filter(|of| has_room || counts.separate.contains_key(of)) {
                Some(of) => *counts.separate.entry(of).or_default() += count,
                None => counts.others += count,
            }
        }
    }

    /// Returns the counts, sorted by address, with the shared counter last, and resets them.
    pub fn take(&self) -> Vec<Counted<K>> {
        let counts = std::mem::take(&mut *self.0.lock());
        let mut separate: Vec<_> = counts.separate.into_iter().collect();
        separate.sort_unstable_by_key(|(of, _)| *of);
        let separate = separate.into_iter().map(|(of, count)| Counted { of: Some(of), count });
        let others = (counts.others > 0).then_some(Counted { of: None, count: counts.others });
        separate.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn many_addresses_become_a_hundred_rows_and_one_for_the_others() {
        let failures = Tally::default();
        for n in 0..1_000_000 {
            failures.note(Ipv4Addr::from_bits(n % 500_000).into(), "key_invalid");
        }
        let rows = failures.take();
        assert_eq!(rows.len(), 101);
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 1_000_000);
        assert_eq!(rows[100], Counted { of: None, count: 999_800 });
        assert!(failures.take().is_empty());
    }
}
