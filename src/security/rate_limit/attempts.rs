//! Limits password and token attempts, per account and per client, against guessing.
//!
//! An attempt counts from its start, so that concurrent attempts cannot exceed the limit. A
//! successful attempt is subtracted again, so that frequent sign-ins with the right password are
//! not limited.

use super::account::Account;
use super::client::CountedClient;
use super::refusal::refuse;
use super::throttle::Throttle;
use crate::core::error::{RateLimited, Result};
use crate::http::{Client, ClientBucket};

/// An attempt in progress. It counts as failed unless [`Attempt::succeeded`] is called.
#[derive(Debug)]
pub struct Attempt {
    throttle: Throttle,
    client: CountedClient,
    account: Option<Account>,
}

impl Throttle {
    /// Counts an attempt at a password, or at a token whose account is not known yet. Call it
    /// before the expensive check.
    pub fn attempt(&self, client: &Client, account: Option<Account>) -> Result<Attempt> {
        let counted = if self.0.enabled {
            self.count_attempt(client.bucket(), account)
                .map_err(|limited| refuse(limited, Some(client)))?
        } else {
            (CountedClient::default(), None)
        };
        let (client, account) = counted;
        Ok(Attempt { throttle: self.clone(), client, account })
    }

    /// Counts an attempt for both, or for none if one of them is refused. Returns who was charged.
    fn count_attempt(
        &self,
        client: ClientBucket,
        account: Option<Account>,
    ) -> Result<(CountedClient, Option<Account>), RateLimited> {
        let client = self.0.attempt_clients.check(client)?;
        match account.map(|account| self.0.attempt_accounts.check(account)).transpose() {
            Ok(account) => Ok((client, account.map(|counted| counted.charged))),
            Err(limited) => {
                self.0.attempt_clients.refund(&client);
                Err(limited)
            }
        }
    }
}

impl Attempt {
    /// Subtracts the attempt from the counters.
    pub fn succeeded(self) {
        let limits = &self.throttle.0;
        limits.attempt_clients.refund(&self.client);
        if let Some(account) = &self.account {
            limits.attempt_accounts.refund(account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::Config;
    use crate::core::error::Error;
    use crate::security::secret::SecretHash;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;

    fn throttle(account: u32, client: u32) -> Throttle {
        let mut limits = Config::from_variables(HashMap::new()).unwrap().rate_limits;
        limits.login = NonZeroU32::new(account).unwrap();
        limits.login_client = NonZeroU32::new(client).unwrap();
        Throttle::new(&limits)
    }

    fn client(n: u32) -> Client {
        Client { ip: Ipv4Addr::from_bits(n).into(), forged_header: false }
    }

    fn limited(attempt: Result<Attempt>) -> RateLimited {
        match attempt {
            Err(Error::RateLimited(limited)) => limited,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn only_failed_attempts_use_up_the_limit_and_concurrent_ones_cannot_exceed_it() {
        let throttle = throttle(3, 100);
        let begin = || throttle.attempt(&client(1), Some(Account::User(1)));
        for _ in 0..50 {
            begin().unwrap().succeeded();
        }
        let in_progress: Vec<_> = (0..3).map(|_| begin().unwrap()).collect();
        assert_eq!(limited(begin()).policy, "login");
        in_progress.into_iter().for_each(Attempt::succeeded);
        for _ in 0..3 {
            drop(begin().unwrap());
        }
        assert_eq!(limited(begin()).per_minute, 3);
        throttle.attempt(&client(1), Some(Account::Named(SecretHash::of("ada")))).unwrap();
    }

    #[test]
    fn a_client_that_tries_many_accounts_is_stopped_and_others_are_not() {
        let throttle = throttle(1, 4);
        let attempt = |from, user| throttle.attempt(&client(from), Some(Account::User(user)));
        drop(attempt(1, 0).unwrap());
        for _ in 0..50 {
            // Refused for the account: it does not count for the client.
            attempt(1, 0).unwrap_err();
        }
        for user in 1..4 {
            drop(attempt(1, user).unwrap());
        }
        assert_eq!(limited(attempt(1, 4)).policy, "login-client");
        attempt(2, 4).unwrap();
        throttle.attempt(&client(1), None).unwrap_err();
    }
}
