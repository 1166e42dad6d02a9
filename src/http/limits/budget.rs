//! A memory budget for large request bodies and for large responses that are not sent yet. The
//! process has one budget; each account may use a share of it.

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;

/// The caller that memory is charged to: its kind and id.
pub type AccountId = (&'static str, i64);

/// The memory budget of the process. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: Mutex<Used>,
}

/// Bytes in use: in total, and per account that uses any.
#[derive(Debug, Default)]
struct Used {
    total: usize,
    accounts: HashMap<AccountId, usize>,
}

impl Budget {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, used: Mutex::default() }))
    }

    /// The account `id`, which may use `1 / divisor` of the budget.
    pub fn account(&self, id: AccountId, divisor: usize) -> Account {
        Account { budget: self.clone(), id, share: self.0.limit / divisor.max(1) }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.0.used.lock()
    }
}

/// An account with a share of the budget.
#[derive(Clone, Debug)]
pub struct Account {
    budget: Budget,
    id: AccountId,
    share: usize,
}

impl Account {
    /// Returns whether both the budget and the account's share have bytes left.
    pub fn has_room(&self) -> bool {
        self.is_below(self.budget.0.limit)
    }

    /// [`has_room`](Self::has_room) for a write. The response to a write is always sent, because
    /// the write has happened, so a write must be refused before it begins. Writes have a reserve
    /// of a quarter of the budget, so that they succeed while large reads are refused.
    pub fn has_room_to_write(&self) -> bool {
        self.is_below(self.budget.0.limit + self.budget.0.limit / 4)
    }

    fn is_below(&self, limit: usize) -> bool {
        let used = self.budget.lock();
        used.total < limit && used.accounts.get(&self.id).is_none_or(|held| *held < self.share)
    }

    /// Charges `bytes`; `None` if there is no room.
    pub fn take(&self, bytes: usize) -> Option<Charge> {
        let mut charge = Charge { account: self.clone(), bytes: 0 };
        charge.grow_to(bytes).then_some(charge)
    }

    /// Charges `bytes`, even beyond the limit.
    pub fn charge(&self, bytes: usize) -> Charge {
        let mut charge = Charge { account: self.clone(), bytes: 0 };
        charge.set(bytes);
        charge
    }
}

/// Bytes charged to an account. Dropping the charge frees them.
#[derive(Debug)]
pub struct Charge {
    account: Account,
    bytes: usize,
}

impl Charge {
    /// Grows to `bytes` if there is room, and returns whether there was. An account's only charge
    /// may exceed its share, so that no request is too large to be served.
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let mut used = self.account.budget.lock();
        let held = used.accounts.get(&self.account.id).copied().unwrap_or(0);
        let fits_share = held + more <= self.account.share || held == self.bytes;
        if !fits_share || used.total + more > self.account.budget.0.limit {
            return false;
        }
        used.change(self.account.id, self.bytes, self.bytes + more);
        self.bytes += more;
        true
    }

    /// Sets the charge to `bytes`, even beyond the limit.
    pub fn set(&mut self, bytes: usize) {
        self.account.budget.lock().change(self.account.id, self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Used {
    /// Changes the charge of account `id` from `before` to `now` bytes.
    fn change(&mut self, id: AccountId, before: usize, now: usize) {
        if before == now {
            return;
        }
        self.total = self.total - before + now;
        let held = self.accounts.entry(id).or_default();
        *held = *held - before + now;
        if *held == 0 {
            self.accounts.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: AccountId = ("user", 1);
    const BEN: AccountId = ("user", 2);

    #[test]
    fn an_account_is_limited_to_its_share_and_all_accounts_to_the_budget() {
        let budget = Budget::new(100);
        let (ada, ben) = (budget.account(ADA, 2), budget.account(BEN, 2));
        let first = ada.take(30).unwrap();
        assert!(ada.take(30).is_none() && ada.has_room());
        let second = ada.take(20).unwrap();
        assert!(!ada.has_room() && !ada.has_room_to_write() && ben.has_room());
        let third = ben.take(50).unwrap();
        assert_eq!(budget.used(), 100);
        drop((first, second, third));
        assert!(budget.used() == 0 && budget.lock().accounts.is_empty());
    }

    #[test]
    fn a_request_larger_than_the_share_is_served_alone() {
        let budget = Budget::new(100);
        let ada = budget.account(ADA, 10);
        let mut large = ada.take(5).unwrap();
        assert!(large.grow_to(100) && !large.grow_to(101));
        assert!(ada.take(1).is_none() && !ada.has_room());
        large.set(8);
        assert!(ada.take(3).is_none() && ada.take(2).is_some());
        assert!(!large.grow_to(101));
    }

    #[test]
    fn writes_have_a_reserve_that_reads_cannot_use() {
        let budget = Budget::new(100);
        let (ada, ben) = (budget.account(ADA, 1), budget.account(BEN, 1));
        let full = ada.take(100).unwrap();
        assert!(!ben.has_room() && ben.has_room_to_write() && ben.take(1).is_none());
        let response = ben.charge(25);
        assert!(!ben.has_room_to_write());
        drop((full, response));
        assert_eq!(budget.used(), 0);
    }
}
