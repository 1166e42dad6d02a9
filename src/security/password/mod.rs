//! Passwords: which are good enough, and how they are hashed and checked.

mod prepared;

pub use prepared::prepared;

use super::secret;
use crate::core::config::{Config, PasswordHasher};
use crate::core::error::{Error, Result};
use crate::core::guesses;
use argon2::password_hash::PasswordHasher as _;
use argon2::{Algorithm, Argon2, Params, PasswordVerifier, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OnceCell, Semaphore};

/// Most characters of a password.
pub const MAX_CHARACTERS: usize = 128;
/// bcrypt ignores what comes after.
const BCRYPT_MAX_BYTES: usize = 72;
/// Each step doubles the work; OWASP asks for 10 at least.
const BCRYPT_COST: u32 = 12;
/// The decimal logarithm of the guesses a password must withstand and more: zxcvbn's score 2.
const MIN_GUESSES: f64 = 6.0;

/// A rule a password breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    /// A common one, a repeat, a sequence, or made of the user's names.
    #[error("this password is too easy to guess: use several unrelated words or random characters")]
    Guessable,
    /// PRECIS forbids this character.
    #[error("a password must not contain U+{:04X}, a control or invisible character", u32::from(*.0))]
    Character(char),
    /// bcrypt would cut it.
    #[error("a password may have at most 72 bytes")]
    TooLongForBcrypt,
}

/// `password` in the form that is hashed. Its length and how easy it is to guess are checked
/// elsewhere.
pub fn accepted(password: &str, hasher: PasswordHasher) -> Result<String, Weakness> {
    let prepared = prepared(password).map_err(Weakness::Character)?;
    if hasher == PasswordHasher::Bcrypt && prepared.len() > BCRYPT_MAX_BYTES {
        return Err(Weakness::TooLongForBcrypt);
    }
    Ok(prepared)
}

/// Whether somebody who knows the `names` of its owner would guess `password` soon. Takes up to
/// 100 ms of CPU.
fn is_guessable(password: &str, names: &[String]) -> bool {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    guesses::log10(password, &names) <= MIN_GUESSES
}

/// Hashes and checks, a few at a time: each takes a core and 19 MiB for tens of milliseconds.
#[derive(Clone, Debug)]
pub struct Passwords {
    hasher: PasswordHasher,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    nobodys: Arc<OnceCell<String>>,
}

impl Passwords {
    /// As `config` says, one at a time for each core.
    pub fn new(config: &Config) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            hasher: config.password_hasher,
            permits: Arc::new(Semaphore::new(cores)),
            waiting: Arc::default(),
            nobodys: Arc::default(),
        }
    }

    /// How many wait or are at work.
    pub fn queue(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The hash to store of a new password, whose owner has these `names`.
    pub async fn hash_new(
        &self,
        password: String,
        names: Vec<String>,
    ) -> Result<Result<String, Weakness>> {
        let hasher = self.hasher;
        self.on_blocking_pool(move || {
            if is_guessable(&password, &names) {
                return Ok(Err(Weakness::Guessable));
            }
            hash(&password, hasher).map(Ok)
        })
        .await?
        .map_err(|error| hashing_failed(&error))
    }

    /// The hash to store of a password that was accepted before.
    pub async fn hash(&self, password: String) -> Result<String> {
        let hasher = self.hasher;
        self.on_blocking_pool(move || hash(&password, hasher))
            .await?
            .map_err(|error| hashing_failed(&error))
    }

    /// Whether `password` is the one `hash`, of either kind, was made of.
    pub async fn verify(&self, password: String, hash: String) -> Result<bool> {
        self.on_blocking_pool(move || {
            prepared::candidates(password).iter().any(|password| verify(password, &hash))
        })
        .await
    }

    /// A hash of a password nobody knows, as hashes are made now: to check one against where there
    /// is no user, in the same time.
    pub async fn nobodys(&self) -> Result<String> {
        let make = || self.hash(secret::make(&mut rand::rng()));
        self.nobodys.get_or_try_init(make).await.cloned()
    }

    /// Whether `hash`, which `password` was made into, should be made anew: it is of another kind,
    /// or took more or less work, than those made now.
    pub fn is_outdated(&self, hash: &str, password: &str) -> bool {
        let (current, fits) = match self.hasher {
            PasswordHasher::Argon2id => (current_argon2id(), true),
            PasswordHasher::Bcrypt => {
                (format!("$2b${BCRYPT_COST}$"), stored_form(password).len() <= BCRYPT_MAX_BYTES)
            }
        };
        fits && !hash.starts_with(&current)
    }

    /// The permit moves into the task: a request that is given up must not let another one start
    /// beside work that still goes on.
    async fn on_blocking_pool<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(self.waiting.clone());
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

/// What a hash of `password` is made of.
fn stored_form(password: &str) -> String {
    prepared(password).unwrap_or_else(|_| password.to_owned())
}

/// The hash of `password`: a PHC string, or bcrypt's own form.
fn hash(password: &str, hasher: PasswordHasher) -> Result<String, String> {
    let password = stored_form(password);
    match hasher {
        PasswordHasher::Argon2id => Argon2::default()
            .hash_password(password.as_bytes())
            .map(|hash| hash.to_string())
            .map_err(|error| error.to_string()),
        // Its form that refuses to cut counts a NUL and so refuses 72 bytes, too.
        PasswordHasher::Bcrypt if password.len() > BCRYPT_MAX_BYTES => {
            Err(Weakness::TooLongForBcrypt.to_string())
        }
        PasswordHasher::Bcrypt => {
            bcrypt::hash(password, BCRYPT_COST).map_err(|error| error.to_string())
        }
    }
}

fn verify(password: &str, hash: &str) -> bool {
    if hash.starts_with("$argon2") {
        return Argon2::default().verify_password(password.as_bytes(), hash).is_ok();
    }
    // One that is too long takes the same time, or it would tell of which kind the hash is.
    bcrypt::verify(password, hash).unwrap_or(false) && password.len() <= BCRYPT_MAX_BYTES
}

fn hashing_failed(error: &str) -> Error {
    Error::Internal(format!("hashing a password failed: {error}").into())
}

/// What hashes begin with that are made by `Argon2::default()`.
fn current_argon2id() -> String {
    let params = Params::default();
    let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
    let (kind, version) = (Algorithm::default(), Version::default() as u32);
    format!("${kind}$v={version}$m={m},t={t},p={p}$")
}

/// Counts one down when dropped.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
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
    async fn both_kinds_of_hash_verify_whichever_is_configured() {
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
    async fn a_hash_of_another_kind_or_of_other_work_is_outdated() {
        let (argon2id, bcrypt) = (passwords("argon2id"), passwords("bcrypt"));
        let by_argon2id = argon2id.nobodys().await.unwrap();
        let by_bcrypt = bcrypt.nobodys().await.unwrap();
        assert!(!argon2id.is_outdated(&by_argon2id, "x") && !bcrypt.is_outdated(&by_bcrypt, "x"));
        assert!(argon2id.is_outdated(&by_bcrypt, "x") && bcrypt.is_outdated(&by_argon2id, "x"));
        // bcrypt could not hold it whole.
        assert!(!bcrypt.is_outdated(&by_argon2id, &"x".repeat(73)));
        assert!(argon2id.is_outdated(&by_argon2id.replace("t=2", "t=1"), "x"));
        assert!(argon2id.is_outdated(&by_argon2id.replace("m=19456", "m=65536"), "x"));
        assert!(argon2id.is_outdated(&by_argon2id.replace("argon2id", "argon2i"), "x"));
        assert!(bcrypt.is_outdated(&by_bcrypt.replace("$12$", "$10$"), "x"));
        assert_eq!(argon2id.nobodys().await.unwrap(), by_argon2id);
    }

    #[tokio::test]
    async fn a_hash_verifies_every_spelling_and_one_of_the_raw_bytes_what_was_typed() {
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
    fn common_passwords_repeats_sequences_and_names_are_guessable_and_odd_ones_are_not() {
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
    fn bcrypt_never_cuts_a_password() {
        let long = "é".repeat(37);
        let refused = Err(Weakness::TooLongForBcrypt);
        assert_eq!(accepted(&long, PasswordHasher::Bcrypt), refused);
        assert_eq!(accepted(&long, PasswordHasher::Argon2id), Ok(long));
    }
}
