//! Rate limits for password and token attempts, per account and per client, against guessing.
//!
//! An attempt counts from its start, so that concurrent attempts cannot exceed the limit. A
//! successful attempt is subtracted again, so that frequent sign-ins with the right password are
//! not limited.

use super::secret::Hash;
use crate::core::error::RateLimited;
use crate::http::ClientBucket;
use crate::http::client_limit::{ClientLimiter, Counted as CountedClient};
use crate::http::rate_limit::{Limiter, LimiterKey};
use std::num::NonZeroU32;
use std::sync::Arc;

/// The account whose password is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// The account of a signed-in user.
    User(i64),
    /// The hash of the email or username given to sign in, whether the user exists or not.
    Named(Hash),
    /// All accounts that are tried while the limiter is full.
    Others,
}

impl LimiterKey for Account {
    const OTHERS: Self = Self::Others;
}

/// Attempts that failed or are in progress. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Attempts(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    accounts: Limiter<Account>,
    clients: ClientLimiter,
}

/// An attempt in progress. It counts as failed unless [`Attempt::succeeded`] is called.
#[derive(Debug)]
pub struct Attempt(Option<Counted>);

#[derive(Debug)]
struct Counted {
    attempts: Attempts,
    client: CountedClient,
    account: Option<Account>,
}

impl Attempts {
    /// Limits the failed attempts per minute of each account and of each client.
    pub(super) fn new(account: NonZeroU32, client: NonZeroU32) -> Self {
        let accounts = Limiter::new("login", account);
        Self(Arc::new(Limits { accounts, clients: ClientLimiter::new("login-client", client) }))
    }

    /// Counts an attempt of `client`, and of `account` if it is known.
    pub(super) fn begin(
        &self,
        client: ClientBucket,
        account: Option<Account>,
    ) -> Result<Attempt, RateLimited> {
        let Limits { accounts, clients } = &*self.0;
        // Resolved once, so that a success is subtracted from the same counters.
        let account = account.map(|account| accounts.settle(&account));
        let client = clients.check(client)?;
        if let Some(account) = &account
            && let Err(limited) = accounts.check(account)
        {
            clients.refund(&client);
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
    /// An attempt without limits.
    pub(super) const UNLIMITED: Self = Self(None);

    /// Subtracts the attempt from the counters.
    pub fn succeeded(self) {
        let Some(Counted { attempts, client, account }) = self.0 else { return };
        attempts.0.clients.refund(&client);
        if let Some(account) = account {
            attempts.0.accounts.refund(&account);
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
    fn only_failed_attempts_use_up_the_limit_and_concurrent_ones_cannot_exceed_it() {
        let attempts = attempts(3, 100);
        let begin = || attempts.begin(client(1), Some(Account::User(1)));
        for _ in 0..50 {
            begin().unwrap().succeeded();
        }
        let in_progress: Vec<_> = (0..3).map(|_| begin().unwrap()).collect();
        assert_eq!(begin().unwrap_err().policy, "login");
        in_progress.into_iter().for_each(Attempt::succeeded);
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
            // Refused for the account: it does not count for the client.
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
