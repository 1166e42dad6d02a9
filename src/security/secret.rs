//! Generates and hashes API keys and tokens.
//!
//! The database stores the SHA-256 of the whole secret. A slow hash would add no protection,
//! because 256 random bits cannot be guessed.

use crate::core::key_format::{ALPHABET, PREFIX, RANDOM, checksum};
use rand::Rng;
use sha2::{Digest, Sha256};

/// Length of the stored prefix by which users recognize a key, in characters.
const DISPLAY_CHARACTERS: usize = 12;

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// Generates an API key.
pub fn generate_key(rng: &mut impl Rng) -> String {
    generate_token(PREFIX, rng)
}

/// Generates a token that begins with `prefix`.
pub fn generate_token(prefix: &str, rng: &mut impl Rng) -> String {
    let mut key = prefix.to_owned();
    while key.len() < prefix.len() + RANDOM {
        // Rejection sampling: two of the 64 values are discarded, so that all 62 characters are
        // equally likely.
        let six_bits = (rng.next_u32() >> 26) as usize;
        if let Some(character) = ALPHABET.get(six_bits) {
            key.push(char::from(*character));
        }
    }
    let sum = checksum(key.as_bytes());
    key + &sum
}

/// The hash under which a key or token is stored.
pub fn hash(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

/// The prefix of `key` that is stored in plain text and shown to users.
pub fn display_prefix(key: &str) -> String {
    key.chars().take(DISPLAY_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::key_format::{LENGTH, is_plausible};
    use std::collections::HashSet;

    #[test]
    fn generated_keys_are_well_formed_and_distinct() {
        let mut rng = rand::rng();
        let keys: HashSet<String> = (0..1000).map(|_| generate_key(&mut rng)).collect();
        assert_eq!(keys.len(), 1000);
        for key in &keys {
            assert!(key.len() == LENGTH && key.starts_with(PREFIX) && is_plausible(key), "{key}");
        }
        let text: String = keys.iter().map(|key| &key[PREFIX.len()..]).collect();
        assert!(ALPHABET.iter().all(|c| text.contains(char::from(*c))), "a character is missing");
    }
}
