//! API keys and tokens as secrets: made, and hashed.
//!
//! What is stored is the SHA-256 of the whole; a slow hash would protect nothing, as nobody can
//! guess 256 bits.

use crate::core::key_format::{ALPHABET, PREFIX, RANDOM, checksum};
use rand::Rng;
use sha2::{Digest, Sha256};

/// Characters of a key that are stored for people to recognise it.
const SHOWN: usize = 12;

/// A SHA-256.
pub type Hash = [u8; 32];

/// A new key.
pub fn make(rng: &mut impl Rng) -> String {
    make_token(PREFIX, rng)
}

/// A new token that begins with `prefix`.
pub fn make_token(prefix: &str, rng: &mut impl Rng) -> String {
    let mut key = prefix.to_owned();
    while key.len() < prefix.len() + RANDOM {
        // Of the 64 values of six bits two are thrown away, so that all characters are as likely.
        let six_bits = (rng.next_u32() >> 26) as usize;
        if let Some(character) = ALPHABET.get(six_bits) {
            key.push(char::from(*character));
        }
    }
    let sum = checksum(key.as_bytes());
    key + &sum
}

/// The hash a key or token is stored and found by.
pub fn hash(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

/// The beginning of `key`, for people.
pub fn shown(key: &str) -> String {
    key.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::key_format::{LENGTH, is_plausible};
    use std::collections::HashSet;

    #[test]
    fn a_made_key_has_the_form_and_no_two_are_alike() {
        let mut rng = rand::rng();
        let keys: HashSet<String> = (0..1000).map(|_| make(&mut rng)).collect();
        assert_eq!(keys.len(), 1000);
        for key in &keys {
            assert!(key.len() == LENGTH && key.starts_with(PREFIX) && is_plausible(key), "{key}");
        }
        let text: String = keys.iter().map(|key| &key[PREFIX.len()..]).collect();
        assert!(ALPHABET.iter().all(|c| text.contains(char::from(*c))), "every character occurs");
    }
}
