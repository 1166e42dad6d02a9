//! Secrets that the operator chooses: `MASTER_API_KEY` and `BOOTSTRAP_TOKEN`.

use super::reader::Reader;
use crate::core::{guesses, key_format};
use secrecy::{ExposeSecret, SecretString};

/// Decimal logarithm of the number of guesses that a secret must withstand. 16 random characters
/// and 32 random hexadecimal digits satisfy it.
const MIN_GUESSES: f64 = 15.0;
const GUESSABLE: &str = "is too easy to guess; generate one with `openssl rand -hex 32`";

/// The placeholders for secrets in this documentation and in that of the FastAPI app. A variable
/// with such a value counts as unset.
const PLACEHOLDERS: [&str; 20] = [
    "your-secret-api-key-here",
    "your-master-api-key-here",
    "your-api-key-here",
    "your-secret-key-here",
    "changeme",
    "change-me",
    "default-api-key",
    "your-secret-api-key",
    "your-secret-key",
    "your-master-key-here",
    "your-master-key",
    "your_actual_master_key",
    "your-actual-key-here",
    "your-actual-key",
    "your-admin-key",
    "your-key-here",
    "octopus_xyz...your-key-here",
    "octopus_abc123...your-key-here",
    "octopus_abc123...your-actual-key",
    "octopus_abc123...your-actual-key-here",
];

/// Minimum length of a configured key in characters. A shorter key that is not random could be
/// guessed.
pub const KEY_MIN_LENGTH: usize = 32;

/// Returns whether `secret` is a placeholder from the documentation.
pub fn is_placeholder(secret: &str) -> bool {
    PLACEHOLDERS.iter().any(|placeholder| placeholder.eq_ignore_ascii_case(secret.trim()))
}

/// Why a key could be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// It has fewer than [`KEY_MIN_LENGTH`] characters.
    Short,
    /// It is not random enough.
    Guessable,
}

impl Weakness {
    /// What is wrong with a setting that has this weakness, and what to do.
    #[must_use]
    pub fn remedy(self) -> String {
        match self {
            Self::Short => format!("must have at least {KEY_MIN_LENGTH} characters"),
            Self::Guessable => GUESSABLE.to_owned(),
        }
    }
}

/// Returns why `key` could be guessed; `None` if it is strong enough. The same rule applies to
/// `MASTER_API_KEY` and to keys that are imported from the FastAPI app.
#[must_use]
pub fn weakness(key: &str) -> Option<Weakness> {
    if key.chars().count() < KEY_MIN_LENGTH {
        Some(Weakness::Short)
    } else if is_guessable(key) {
        Some(Weakness::Guessable)
    } else {
        None
    }
}

/// Reads `MASTER_API_KEY`. Returns `None` for a placeholder. A weak key is accepted here, because
/// the database may have it: an import with `--accept-weak` keeps it active. It is refused where it
/// would be registered.
pub(super) fn master_api_key(r: &mut Reader) -> Option<SecretString> {
    let key = r.secret("MASTER_API_KEY")?;
    if is_placeholder(key.expose_secret()) {
        return None;
    }
    let text = key.expose_secret();
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        // A header field cannot contain other characters, so no client could send the key.
        r.problem("MASTER_API_KEY", "must consist of visible ASCII characters");
    } else if !key_format::is_plausible(text) {
        let what = "has the length of a generated key, but its checksum is wrong: check for typos";
        r.problem("MASTER_API_KEY", what);
    }
    Some(key)
}

/// Reads `BOOTSTRAP_TOKEN`.
pub(super) fn bootstrap_token(r: &mut Reader) -> Option<SecretString> {
    let token = r.secret("BOOTSTRAP_TOKEN")?;
    if is_guessable(token.expose_secret()) {
        r.problem("BOOTSTRAP_TOKEN", GUESSABLE);
    }
    Some(token)
}

fn is_guessable(secret: &str) -> bool {
    guesses::log10(secret, &[]) < MIN_GUESSES
}
