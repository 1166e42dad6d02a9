//! API keys as secrets: made, hashed, and recognised when mistyped.
//!
//! A key is `octopus_`, 43 base62 characters (256 random bits), and 6 of CRC-32/ISO-HDLC over those
//! 51 bytes: 57 characters. What is stored is the SHA-256 of the whole; a slow hash would protect
//! nothing, as nobody can guess 256 bits.

use rand::Rng;
use sha2::{Digest, Sha256};

/// What keys begin with.
pub const PREFIX: &str = "octopus_";
/// Characters of a key we made.
pub const LENGTH: usize = 57;
/// Characters of a key that are stored for people to recognise it.
const SHOWN: usize = 12;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM: usize = 43;
const CHECKSUM: usize = 6;

/// A SHA-256.
pub type Hash = [u8; 32];

/// A new key.
pub fn make(rng: &mut impl Rng) -> String {
    let mut key = PREFIX.to_owned();
    while key.len() < PREFIX.len() + RANDOM {
        // Of the 64 values of six bits two are thrown away, so that all characters are as likely.
        let six_bits = (rng.next_u32() >> 26) as usize;
        if let Some(character) = ALPHABET.get(six_bits) {
            key.push(char::from(*character));
        }
    }
    let sum = checksum(key.as_bytes());
    key + &sum
}

/// The hash a key is stored and found by.
pub fn hash(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

/// Whether `key` could be one: a key of our length has the right checksum, others are older or
/// configured and anything goes.
pub fn is_plausible(key: &str) -> bool {
    if key.len() != LENGTH {
        return !key.is_empty();
    }
    let (body, sum) = key.as_bytes().split_at(LENGTH - CHECKSUM);
    checksum(body).as_bytes() == sum
}

/// The beginning of `key`, for people.
pub fn shown(key: &str) -> String {
    key.chars().take(SHOWN).collect()
}

fn checksum(bytes: &[u8]) -> String {
    let mut rest = crc32fast::hash(bytes) as usize;
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % ALPHABET.len()];
        rest /= ALPHABET.len();
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: &str = "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMQ";

    #[test]
    fn the_test_vector_of_the_design_is_plausible() {
        assert!(is_plausible(VECTOR));
        assert_eq!(VECTOR.len(), LENGTH);
    }

    #[test]
    fn every_single_mistyped_character_is_noticed() {
        for at in 0..LENGTH {
            let mut mistyped = VECTOR.as_bytes().to_vec();
            mistyped[at] = if mistyped[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_plausible(&String::from_utf8(mistyped).unwrap()), "character {at}");
        }
    }

    #[test]
    fn a_made_key_has_the_form_and_no_two_are_alike() {
        let mut rng = rand::rng();
        let keys: std::collections::HashSet<String> = (0..1000).map(|_| make(&mut rng)).collect();
        assert_eq!(keys.len(), 1000);
        for key in &keys {
            assert!(key.len() == LENGTH && key.starts_with(PREFIX) && is_plausible(key), "{key}");
        }
        let text: String = keys.iter().map(|key| &key[PREFIX.len()..]).collect();
        assert!(ALPHABET.iter().all(|c| text.contains(char::from(*c))), "every character occurs");
    }

    #[test]
    fn keys_of_other_lengths_are_taken_as_they_are() {
        assert!(is_plausible("an-older-key-from-the-python-days"));
        assert!(!is_plausible(""));
    }
}
