//! The limits of tries at passwords and tokens, which people may guess: for each account, and for
//! each client.
//!
//! A try counts from its beginning, so that many at once are not more than one after the other, and
//! counts no more once it was right: who knows their password is not held up by having used it.

use super::secret::Hash;
use crate::core::error::RateLimited;
use crate::http::ClientBucket;
use crate::http::client_limit::{ClientLimiter, Counted as CountedClient};
use crate::http::rate_limit::{Caller, Limiter};
use std::num::NonZeroU32;
use std::sync::Arc;

/// Whose password is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// That of a user who is logged in.
    User(i64),
    /// The hash of what somebody who logs in calls themselves, whether there is such a user or not.
    Named(Hash),
    /// Everybody's who was tried when the limiter was full.
    Others,
}

impl Caller for Account {
    const OTHERS: Self = Self::Others;
}

/// Tries that failed or are under way. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Attempts(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    accounts: Limiter<Account>,
    clients: ClientLimiter,
}

/// A try that counts as one that failed until it is said to have been right.
#[derive(Debug)]
pub struct Attempt(Option<Counted>);

#[derive(Debug)]
struct Counted {
    attempts: Attempts,
    client: CountedClient,
    account: Option<Account>,
}

impl Attempts {
    /// Allows each account and each client so many tries a minute that fail.
    pub(super) fn new(account: NonZeroU32, client: NonZeroU32) -> Self {
        let accounts = Limiter::new("login", account);
        Self(Arc::new(Limits { accounts, clients: ClientLimiter::new("login-client", client) }))
    }

    /// Counts a try of `client`, at an account where it is known at which.
    pub(super) fn begin(
        &self,
        client: ClientBucket,
        account: Option<Account>,
    ) -> Result<Attempt, RateLimited> {
        let Limits { accounts, clients } = &*self.0;
        // As they are counted now, so that the same ones are given back.
        let account = account.map(|account| accounts.settle(&account));
        let client = clients.check(client)?;
        if let Some(account) = &account
            && let Err(limited) = accounts.check(account)
        {
            clients.give_back(&client);
            return Err(limited);
        }
        Ok(Attempt(Some(Counted { attempts: self.clone(), client, account })))
    }

    pub(super) fn sweep(&self) {
        self.0.accounts.sweep();
        self.0.clients.sweep();
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 2] {
        let Limits { accounts, clients } = &*self.0;
        [(accounts.policy(), accounts.len()), clients.size()]
    }
}

impl Attempt {
    /// Where there are no limits.
    pub(super) const UNLIMITED: Self = Self(None);

    /// Counts it no more.
    pub fn succeeded(self) {
        let Some(Counted { attempts, client, account }) = self.0 else { return };
        attempts.0.clients.give_back(&client);
        if let Some(account) = account {
            attempts.0.accounts.give_back(&account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn attempts(account: u32, client: u32) -> Attempts {
        let per_minute = |n| NonZeroU32::new(n).unwrap();
        Attempts::new(per_minute(account), per_minute(client))
    }

    fn client(n: u32) -> ClientBucket {
        ClientBucket::V4(Ipv4Addr::from_bits(n))
    }

    #[test]
    fn only_tries_that_fail_use_up_the_allowance_but_many_at_once_are_not_more() {
        let attempts = attempts(3, 100);
        let begin = || attempts.begin(client(1), Some(Account::User(1)));
        for _ in 0..50 {
            begin().unwrap().succeeded();
        }
        let under_way: Vec<_> = (0..3).map(|_| begin().unwrap()).collect();
        assert_eq!(begin().unwrap_err().policy, "login");
        under_way.into_iter().for_each(Attempt::succeeded);
        for _ in 0..3 {
            drop(begin().unwrap());
        }
        assert_eq!(begin().unwrap_err().per_minute, 3);
        attempts.begin(client(1), Some(Account::Named([1; 32]))).unwrap();
    }

    #[test]
    fn a_client_that_tries_many_accounts_is_stopped_and_others_are_not() {
        let attempts = attempts(1, 4);
        drop(attempts.begin(client(1), Some(Account::User(0))).unwrap());
        for _ in 0..50 {
            // Refused for the account: it was no try of the client.
            attempts.begin(client(1), Some(Account::User(0))).unwrap_err();
        }
        for user in 1..4 {
            drop(attempts.begin(client(1), Some(Account::User(user))).unwrap());
        }
        let refused = attempts.begin(client(1), Some(Account::User(4))).unwrap_err();
        assert_eq!(refused.policy, "login-client");
        attempts.begin(client(2), Some(Account::User(4))).unwrap();
        attempts.begin(client(1), None).unwrap_err();
    }
}
