//! Password strength, hashing and verification.

mod hasher;
mod prepared;

pub use hasher::{MAX_CHARACTERS, MAX_TYPED_CHARACTERS, PasswordError, Passwords, accepted};
pub use prepared::prepared;
