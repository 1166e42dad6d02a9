//! The format of API keys and tokens. A checksum detects mistyped ones without a database query.
//!
//! A key consists of `octopus_`, 43 base62 characters (256 random bits), and the CRC-32/ISO-HDLC of
//! those 51 bytes in 6 base62 characters: 57 characters. Imported and configured keys may have
//! another length and any form. Tokens have the same format with another prefix, and no other form.

/// The prefix of API keys.
pub const PREFIX: &str = "octopus_";
/// The prefix of session tokens.
pub const SESSION_PREFIX: &str = "octs_";
/// The prefix of password reset tokens.
pub const RESET_PREFIX: &str = "octr_";
/// The prefix of event stream tickets.
pub const TICKET_PREFIX: &str = "octe_";
/// The prefix of the `/bootstrap` token generated at startup. Not one of [`PREFIXES`], because logs
/// redact those and the operator reads this token in the log.
pub const BOOTSTRAP_PREFIX: &str = "octb_";
/// The prefixes of secrets that logs and error responses redact.
pub const PREFIXES: [&str; 4] = [PREFIX, SESSION_PREFIX, RESET_PREFIX, TICKET_PREFIX];
/// Number of random characters after the prefix.
pub const RANDOM: usize = 43;
/// Length of an API key in characters.
pub const LENGTH: usize = PREFIX.len() + RANDOM + CHECKSUM_LENGTH;
/// The base62 digits of the random part and the checksum, in order of their values.
pub const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const CHECKSUM_LENGTH: usize = 6;

/// Returns whether `key` may be an API key. A key of [`LENGTH`] must have the right checksum; a key
/// of any other length must not be empty.
pub fn is_plausible(key: &str) -> bool {
    if key.len() != LENGTH {
        return !key.is_empty();
    }
    has_checksum(key)
}

/// Returns whether `key` is a mistyped or truncated API key: it has the prefix of a generated key,
/// but the wrong length or checksum.
pub fn is_mistyped(key: &str) -> bool {
    key.starts_with(PREFIX) && !(key.len() == LENGTH && has_checksum(key))
}

/// Returns whether `text` has the format of a token with `prefix`.
pub fn is_token(prefix: &str, text: &str) -> bool {
    text.starts_with(prefix)
        && text.len() == prefix.len() + RANDOM + CHECKSUM_LENGTH
        && has_checksum(text)
}

fn has_checksum(text: &str) -> bool {
    let (body, sum) = text.as_bytes().split_at(text.len() - CHECKSUM_LENGTH);
    checksum(body).as_bytes() == sum
}

/// Returns the checksum of `body` (prefix and random part) in base62, most significant digit first.
pub fn checksum(body: &[u8]) -> String {
    let mut rest = crc32fast::hash(body) as usize;
    let mut digits = [b'0'; CHECKSUM_LENGTH];
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
    fn the_test_vector_is_plausible() {
        assert!(is_plausible(VECTOR));
        assert_eq!((VECTOR.len(), LENGTH), (57, 57));
    }

    #[test]
    fn every_single_mistyped_character_is_detected() {
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
    fn keys_of_other_lengths_need_no_checksum() {
        assert!(is_plausible("an-older-key-from-the-python-days"));
        assert!(!is_plausible(""));
    }
}
