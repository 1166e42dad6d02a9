//! The cost of password hashes.

use argon2::Params;

/// The work that a hash takes.
#[derive(Clone, Debug)]
pub struct PasswordCost {
    /// Memory, passes and threads of argon2id.
    pub argon2id: Params,
    /// Cost factor of bcrypt: each step doubles the work.
    pub bcrypt: u32,
}

impl Default for PasswordCost {
    /// The recommendation of OWASP's Password Storage Cheat Sheet for argon2id: 19 MiB, two passes,
    /// one thread. For bcrypt, it recommends at least 10.
    fn default() -> Self {
        Self { argon2id: Params::default(), bcrypt: 12 }
    }
}
