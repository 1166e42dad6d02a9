//! Generates and hashes API keys and tokens.
//!
//! The database stores the SHA-256 of the whole secret. A slow hash would add no protection,
//! because 256 random bits cannot be guessed.

use crate::core::key_format::{
    ALPHABET, BOOTSTRAP_PREFIX, PREFIX, RANDOM, RESET_PREFIX, SESSION_PREFIX, TICKET_PREFIX,
    checksum, is_token,
};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::array::TryFromSliceError;
use std::fmt::{self, Debug, Formatter};

/// Length of the stored prefix by which users recognize a key, in characters.
const DISPLAY_CHARACTERS: usize = 12;

/// A key or token in plain text. `Debug` does not print it, and dropping it zeroes its memory.
///
/// A field of a response needs `#[schema(value_type = String)]` for the OpenAPI document.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The secret that is `text`.
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The plain text.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// Serializes the plain text, for the one response that contains the secret.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl From<Secret> for SecretString {
    fn from(secret: Secret) -> Self {
        secret.0
    }
}

/// A kind of generated secret. Each kind has its own prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// An API key.
    ApiKey,
    /// The token of a session.
    Session,
    /// A single-use token to reset a password.
    PasswordReset,
    /// A single-use ticket for an event stream.
    Ticket,
    /// The token of `/bootstrap` that is generated at startup.
    Bootstrap,
}

impl TokenKind {
    /// The first characters of a secret of this kind.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => PREFIX,
            Self::Session => SESSION_PREFIX,
            Self::PasswordReset => RESET_PREFIX,
            Self::Ticket => TICKET_PREFIX,
            Self::Bootstrap => BOOTSTRAP_PREFIX,
        }
    }

    /// Returns whether `text` has the format and the checksum of this kind.
    pub fn matches(self, text: &str) -> bool {
        is_token(self.prefix(), text)
    }

    /// Generates a secret of this kind: the prefix, 256 random bits and a checksum.
    pub fn generate(self, rng: &mut impl Rng) -> Secret {
        let prefix = self.prefix();
        let mut text = prefix.to_owned();
        while text.len() < prefix.len() + RANDOM {
            // Rejection sampling: two of the 64 values are discarded, so that all 62 characters are
            // equally likely.
            let six_bits = (rng.next_u32() >> 26) as usize;
            if let Some(character) = ALPHABET.get(six_bits) {
                text.push(char::from(*character));
            }
        }
        let sum = checksum(text.as_bytes());
        Secret::new(text + &sum)
    }
}

/// The SHA-256 digest under which a key or token is stored. `Debug` does not print it: an imported
/// key may be short enough to be found from its hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of the plain text of a key or token.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// The 32 bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 32 bytes of the digest, as a value to bind in a statement.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl Debug for SecretHash {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash([redacted])")
    }
}

/// Reads a stored hash. Fails if it does not have 32 bytes.
impl TryFrom<Vec<u8>> for SecretHash {
    type Error = TryFromSliceError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, TryFromSliceError> {
        <[u8; 32]>::try_from(bytes.as_slice()).map(Self)
    }
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
        let generate = |_| TokenKind::ApiKey.generate(&mut rng).expose().to_owned();
        let keys: HashSet<String> = (0..1000).map(generate).collect();
        assert_eq!(keys.len(), 1000);
        for key in &keys {
            assert!(key.len() == LENGTH && key.starts_with(PREFIX) && is_plausible(key), "{key}");
        }
        let text: String = keys.iter().map(|key| &key[PREFIX.len()..]).collect();
        assert!(ALPHABET.iter().all(|c| text.contains(char::from(*c))), "a character is missing");
    }

    #[test]
    fn neither_a_secret_nor_its_hash_is_in_debug_output() {
        let secret = TokenKind::Session.generate(&mut rand::rng());
        let hash = SecretHash::of(secret.expose());
        assert_eq!(format!("{secret:?} {hash:?}"), "Secret([redacted]) SecretHash([redacted])");
        assert_eq!(serde_json::to_value(&secret).unwrap(), secret.expose());
        assert_eq!(SecretHash::try_from(hash.to_vec()).unwrap(), hash);
        SecretHash::try_from(vec![0; 31]).unwrap_err();
    }
}
