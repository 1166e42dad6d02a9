//! What API keys and tokens look like, so that a mistyped one is noticed before anything is looked
//! up.
//!
//! A key is `octopus_`, 43 base62 characters (256 random bits), and 6 of CRC-32/ISO-HDLC over those
//! 51 bytes: 57 characters. Older and configured keys have other lengths and any form. Tokens are
//! made the same way, each kind with a prefix of its own, and have no other form.

/// What keys begin with.
pub const PREFIX: &str = "octopus_";
/// What the tokens of sessions begin with.
pub const SESSION_PREFIX: &str = "octs_";
/// What the tokens that reset a password begin with.
pub const RESET_PREFIX: &str = "octr_";
/// What the tickets of event streams begin with.
pub const TICKET_PREFIX: &str = "octe_";
/// All of them.
pub const PREFIXES: [&str; 4] = [PREFIX, SESSION_PREFIX, RESET_PREFIX, TICKET_PREFIX];
/// Random characters after the prefix.
pub const RANDOM: usize = 43;
/// Characters in all.
pub const LENGTH: usize = PREFIX.len() + RANDOM + CHECKSUM;
/// The characters of the random part and of the checksum, by their value.
pub const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const CHECKSUM: usize = 6;

/// Whether `key` could be one: a key of our length has the right checksum, with others anything
/// goes.
pub fn is_plausible(key: &str) -> bool {
    if key.len() != LENGTH {
        return !key.is_empty();
    }
    has_checksum(key)
}

/// Whether `text` could be a token that begins with `prefix`.
pub fn is_token(prefix: &str, text: &str) -> bool {
    text.starts_with(prefix) && text.len() == prefix.len() + RANDOM + CHECKSUM && has_checksum(text)
}

fn has_checksum(text: &str) -> bool {
    let (body, sum) = text.as_bytes().split_at(text.len() - CHECKSUM);
    checksum(body).as_bytes() == sum
}

/// The checksum of the prefix and the random part: base62, the highest digit first.
pub fn checksum(body: &[u8]) -> String {
    let mut rest = crc32fast::hash(body) as usize;
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
        assert_eq!((VECTOR.len(), LENGTH), (57, 57));
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
    fn a_token_has_its_own_prefix_and_a_checksum() {
        let body = format!("{SESSION_PREFIX}{}", "a".repeat(RANDOM));
        let token = format!("{body}{}", checksum(body.as_bytes()));
        assert!(is_token(SESSION_PREFIX, &token) && token.len() == 54);
        assert!(!is_token(RESET_PREFIX, &token));
        for other in [&token[1..], &token[..53], &token.replacen('a', "b", 1), "octs_", ""] {
            assert!(!is_token(SESSION_PREFIX, other), "{other}");
        }
    }

    #[test]
    fn keys_of_other_lengths_are_taken_as_they_are() {
        assert!(is_plausible("an-older-key-from-the-python-days"));
        assert!(!is_plausible(""));
    }
}
