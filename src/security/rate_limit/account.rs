//! The account for which attempts at a password are counted.

use super::limiter::Countable;
use crate::security::secret::SecretHash;

/// The account whose password is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// The account of a signed-in user.
    User(i64),
    /// The hash of the email or username given to sign in, whether the user exists or not.
    Named(SecretHash),
    /// All accounts that are tried while the limiter is full.
    Others,
}

impl Countable for Account {
    const OTHERS: Self = Self::Others;
}
