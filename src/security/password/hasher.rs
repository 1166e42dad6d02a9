//! Checks the strength of passwords, hashes and verifies them.

use super::prepared::{candidates, prepared};
use crate::core::config::{Config, PasswordCost, PasswordHasher};
use crate::core::error::{Error, Result};
use crate::core::guesses;
use crate::security::secret::TokenKind;
use argon2::password_hash::PasswordHasher as _;
use argon2::{Algorithm, Argon2, Params, PasswordVerifier, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OnceCell, Semaphore};

/// Maximum length of a password, in characters, after normalization.
pub const MAX_CHARACTERS: usize = 128;
/// Maximum length of a password as typed, in characters. No character decomposes into more than
/// four, so longer texts have more than [`MAX_CHARACTERS`] after normalization.
pub const MAX_TYPED_CHARACTERS: usize = 4 * MAX_CHARACTERS;
/// Maximum length of a password for bcrypt, which ignores all further bytes.
const BCRYPT_MAX_BYTES: usize = 72;
/// Decimal logarithm of the number of guesses that a password must exceed: zxcvbn's score 2.
const MIN_GUESSES: f64 = 6.0;

/// The rule that a password violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// A common password, a repetition, a sequence, or derived from the user's names.
    #[error("this password is too easy to guess: use several unrelated words or random characters")]
    Guessable,
    /// PRECIS (RFC 8265) forbids this character.
    #[error(
        "a password must not contain U+{:04X}, a control or invisible character",
        u32::from(*.0)
    )]
    Character(char),
    /// bcrypt would truncate the password.
    #[error("a password may have at most 72 bytes")]
    TooLongForBcrypt,
}

/// Normalizes `password` for hashing and checks its characters. Does not check its length in
/// characters or its strength.
pub fn accepted(password: &str, hasher: PasswordHasher) -> Result<String, PasswordError> {
    let prepared = prepared(password).map_err(PasswordError::Character)?;
    if hasher == PasswordHasher::Bcrypt && prepared.len() > BCRYPT_MAX_BYTES {
        return Err(PasswordError::TooLongForBcrypt);
    }
    Ok(prepared)
}

/// Returns whether `password` is easy to guess for an attacker who knows the `names` of its owner.
/// Uses up to 100 ms of CPU time.
fn is_guessable(password: &str, names: &[String]) -> bool {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    guesses::log10(password, &names) <= MIN_GUESSES
}

/// Hashes and verifies passwords with limited concurrency: each operation uses one core and 19 MiB
/// of memory for tens of milliseconds.
#[derive(Clone, Debug)]
pub struct Passwords {
    hasher: PasswordHasher,
    cost: PasswordCost,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    dummy_hash: Arc<OnceCell<String>>,
}

impl Passwords {
    /// Uses the hasher and the cost of `config`, with one concurrent operation per core.
    pub fn new(config: &Config) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            hasher: config.password_hasher,
            cost: config.password_cost.clone(),
            permits: Arc::new(Semaphore::new(cores)),
            waiting: Arc::default(),
            dummy_hash: Arc::default(),
        }
    }

    /// Number of operations that are queued or running.
    pub fn queue(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Checks the strength of a new password, whose owner has these `names`, and hashes it.
    pub async fn hash_new(
        &self,
        password: String,
        names: Vec<String>,
    ) -> Result<Result<String, PasswordError>> {
        let (hasher, cost) = (self.hasher, self.cost.clone());
        self.on_blocking_pool(move || {
            if is_guessable(&password, &names) {
                return Ok(Err(PasswordError::Guessable));
            }
            hash(&password, hasher, &cost).map(Ok)
        })
        .await?
        .map_err(|error| hashing_failed(&error))
    }

    /// Hashes a password without a check of its strength.
    pub async fn hash(&self, password: String) -> Result<String> {
        let (hasher, cost) = (self.hasher, self.cost.clone());
        self.on_blocking_pool(move || hash(&password, hasher, &cost))
            .await?
            .map_err(|error| hashing_failed(&error))
    }

    /// Returns whether `password` matches `hash`, which may be an argon2id or a bcrypt hash.
    pub async fn verify(&self, password: String, hash: String) -> Result<bool> {
        self.on_blocking_pool(move || {
            candidates(password).iter().any(|password| verify(password, &hash))
        })
        .await
    }

    /// The hash of a random password, made on first use. Verifying a password against it takes as
    /// long as for an existing user, so the response time does not reveal unknown users.
    pub async fn dummy_hash(&self) -> Result<String> {
        let make = || {
            let random = TokenKind::ApiKey.generate(&mut rand::rng());
            self.hash(random.expose().to_owned())
        };
        self.dummy_hash.get_or_try_init(make).await.cloned()
    }

    /// Returns whether `hash`, the hash of `password`, should be replaced because its algorithm or
    /// its cost differs from the configured ones.
    pub fn is_outdated(&self, hash: &str, password: &str) -> bool {
        let (current, fits) = match self.hasher {
            PasswordHasher::Argon2id => (argon2id_prefix(&self.cost.argon2id), true),
            PasswordHasher::Bcrypt => (
                format!("$2b${:02}$", self.cost.bcrypt),
                stored_form(password).len() <= BCRYPT_MAX_BYTES,
            ),
        };
        fits && !hash.starts_with(&current)
    }

    /// Runs `work` on the blocking pool. The permit moves into the task, because the work continues
    /// when its request is cancelled, and must count until it ends.
    async fn on_blocking_pool<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _guard = QueueGuard(self.waiting.clone());
        let closed = |_| Error::Unavailable("The server is shutting down");
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        task.await.map_err(|_| Error::Internal("hashing a password panicked".into()))
    }
}

/// The normalized form of `password`, or `password` itself if it cannot be normalized.
fn stored_form(password: &str) -> String {
    prepared(password).unwrap_or_else(|_| password.to_owned())
}

/// Hashes `password`. Returns a PHC string, or bcrypt's modular crypt format.
fn hash(password: &str, hasher: PasswordHasher, cost: &PasswordCost) -> Result<String, String> {
    let password = stored_form(password);
    match hasher {
        PasswordHasher::Argon2id => argon2id(cost.argon2id.clone())
            .hash_password(password.as_bytes())
            .map(|hash| hash.to_string())
            .map_err(|error| error.to_string()),
        // `bcrypt::non_truncating_hash` counts the final NUL, so it would refuse 72 bytes as well.
        PasswordHasher::Bcrypt if password.len() > BCRYPT_MAX_BYTES => {
            Err(PasswordError::TooLongForBcrypt.to_string())
        }
        PasswordHasher::Bcrypt => {
            bcrypt::hash(password, cost.bcrypt).map_err(|error| error.to_string())
        }
    }
}

fn verify(password: &str, hash: &str) -> bool {
    if hash.starts_with("$argon2") {
        return Argon2::default().verify_password(password.as_bytes(), hash).is_ok();
    }
    // A password that is too long takes the same time: otherwise the time would reveal the
    // algorithm.
    bcrypt::verify(password, hash).unwrap_or(false) && password.len() <= BCRYPT_MAX_BYTES
}

fn hashing_failed(error: &str) -> Error {
    Error::Internal(format!("hashing a password failed: {error}").into())
}

fn argon2id(params: Params) -> Argon2<'static> {
    Argon2::new(Algorithm::default(), Version::default(), params)
}

/// The prefix of the hashes that [`argon2id`] creates with `params`.
fn argon2id_prefix(params: &Params) -> String {
    let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
    let (kind, version) = (Algorithm::default(), Version::default() as u32);
    format!("${kind}$v={version}$m={m},t={t},p={p}$")
}

/// Decrements the counter when dropped.
struct QueueGuard(Arc<AtomicUsize>);

impl Drop for QueueGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn passwords(hasher: &str) -> Passwords {
        let variables = HashMap::from([("PASSWORD_HASHER".to_owned(), hasher.to_owned())]);
        Passwords::new(&Config::from_variables(variables).unwrap())
    }

    #[tokio::test]
    async fn both_kinds_of_hash_verify_with_either_configuration() {
        for (hasher, begins) in
            [("argon2id", "$argon2id$v=19$m=19456,t=2,p=1$"), ("bcrypt", "$2b$12$")]
        {
            let hash = passwords(hasher).hash("correct horse".into()).await.unwrap();
            assert!(hash.starts_with(begins), "{hash}");
            for verifier in ["argon2id", "bcrypt"] {
                let verifier = passwords(verifier);
                assert!(verifier.verify("correct horse".into(), hash.clone()).await.unwrap());
                assert!(!verifier.verify("wrong horse".into(), hash.clone()).await.unwrap());
            }
        }
    }

    #[tokio::test]
    async fn a_hash_with_another_algorithm_or_cost_is_outdated() {
        let (argon2id, bcrypt) = (passwords("argon2id"), passwords("bcrypt"));
        let by_argon2id = argon2id.dummy_hash().await.unwrap();
        let by_bcrypt = bcrypt.dummy_hash().await.unwrap();
        assert!(!argon2id.is_outdated(&by_argon2id, "x") && !bcrypt.is_outdated(&by_bcrypt, "x"));
        assert!(argon2id.is_outdated(&by_bcrypt, "x") && bcrypt.is_outdated(&by_argon2id, "x"));
        // bcrypt would truncate this password.
        assert!(!bcrypt.is_outdated(&by_argon2id, &"x".repeat(73)));
        assert!(argon2id.is_outdated(&by_argon2id.replace("t=2", "t=1"), "x"));
        assert!(argon2id.is_outdated(&by_argon2id.replace("m=19456", "m=65536"), "x"));
        assert!(argon2id.is_outdated(&by_argon2id.replace("argon2id", "argon2i"), "x"));
        assert!(bcrypt.is_outdated(&by_bcrypt.replace("$12$", "$10$"), "x"));
        assert_eq!(argon2id.dummy_hash().await.unwrap(), by_argon2id);
    }

    #[tokio::test]
    async fn a_hash_matches_every_spelling_and_a_hash_of_raw_bytes_matches_only_those() {
        let passwords = passwords("argon2id");
        let hash = passwords.hash("Jose\u{301} und\u{a0}Ada".into()).await.unwrap();
        let raw = Argon2::default().hash_password("Jose\u{301} und\u{a0}Ada".as_bytes()).unwrap();
        for (typed, by_hash, by_raw) in [
            ("Jos\u{e9} und Ada", true, false),
            ("Jose\u{301} und\u{a0}Ada", true, true),
            ("Jose und Ada", false, false),
        ] {
            assert_eq!(passwords.verify(typed.into(), hash.clone()).await.unwrap(), by_hash);
            assert_eq!(passwords.verify(typed.into(), raw.to_string()).await.unwrap(), by_raw);
        }
    }

    #[test]
    fn common_passwords_repetitions_sequences_and_names_are_guessable_and_others_are_not() {
        let names = ["alice".to_owned(), "alice.liddell@wonderland.example".to_owned()];
        for guessable in [
            "password",
            "12345678",
            "qwertyuiop",
            "iloveyou",
            "p@ssw0rd",
            &"a".repeat(128),
            &"abc".repeat(42),
            &"0123456789".repeat(12),
            "abcdefghijklmnopqrstuvwxyz0123456789ABCDEF",
            &"kV".repeat(64),
            &"\u{1f991}".repeat(128),
            &"p@ssw0rd".repeat(16),
            "alicealice",
            "alice.liddell@wonderland.example",
            "Alice-Liddell-Wonderland-1",
        ] {
            assert!(is_guessable(guessable, &names), "{guessable}");
        }
        for good in [
            "correct horse battery",
            "SecurePass123!",
            "ночной поезд",
            "xkwq-92-tolb",
            "alice and the lamp of a lost fox",
            &"x9Kq-Tw7z".repeat(14),
        ] {
            assert!(!is_guessable(good, &names), "{good}");
        }
    }

    #[test]
    fn bcrypt_never_truncates_a_password() {
        let long = "é".repeat(37);
        let refused = Err(PasswordError::TooLongForBcrypt);
        assert_eq!(accepted(&long, PasswordHasher::Bcrypt), refused);
        assert_eq!(accepted(&long, PasswordHasher::Argon2id), Ok(long));
    }
}
