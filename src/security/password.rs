//! Passwords: which are good enough, and how they are hashed and checked.

use super::secret;
use crate::core::config::{Config, PasswordHasher};
use crate::core::error::{Error, Result};
use argon2::password_hash::PasswordHasher as _;
use argon2::{Algorithm, Argon2, Params, PasswordVerifier, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OnceCell, Semaphore};
use zxcvbn::Score;
use zxcvbn::feedback::Warning;

/// Most characters of a password.
pub const MAX_CHARACTERS: usize = 128;
/// bcrypt ignores what comes after.
const BCRYPT_MAX_BYTES: usize = 72;
/// Each step doubles the work; OWASP asks for 10 at least.
const BCRYPT_COST: u32 = 12;
/// Passwords longer than this are on no list of common ones.
const COMMON_MAX_CHARACTERS: usize = 24;

/// A rule a password breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    /// Among those everybody tries first.
    #[error("this password is one of the most common ones: choose another")]
    Common,
    /// bcrypt would cut it.
    #[error("a password may have at most 72 bytes")]
    TooLongForBcrypt,
}

/// What is wrong with `password`, whose length is checked elsewhere. The list of common ones is
/// zxcvbn's.
pub fn weakness(password: &str, hasher: PasswordHasher) -> Option<Weakness> {
    if hasher == PasswordHasher::Bcrypt && password.len() > BCRYPT_MAX_BYTES {
        return Some(Weakness::TooLongForBcrypt);
    }
    if password.chars().count() > COMMON_MAX_CHARACTERS {
        return None;
    }
    let estimate = zxcvbn::zxcvbn(password, &[]);
    let warning = estimate.feedback().and_then(zxcvbn::feedback::Feedback::warning);
    let common = matches!(
        warning,
        Some(
            Warning::ThisIsATop10Password
                | Warning::ThisIsATop100Password
                | Warning::ThisIsACommonPassword
        )
    );
    // Of a repeat or a sequence (11111111) it says so instead, and that it is guessed at once.
    (common || estimate.score() == Score::Zero).then_some(Weakness::Common)
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

    /// The hash to store: a PHC string, or bcrypt's own form.
    pub async fn hash(&self, password: String) -> Result<String> {
        let hasher = self.hasher;
        self.on_blocking_pool(move || match hasher {
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
        })
        .await?
        .map_err(|error| Error::Internal(format!("hashing a password failed: {error}").into()))
    }

    /// Whether `password` is the one `hash`, of either kind, was made of.
    pub async fn verify(&self, password: String, hash: String) -> Result<bool> {
        self.on_blocking_pool(move || {
            if hash.starts_with("$argon2") {
                Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok()
            } else {
                // One that is too long takes the same time, or it would tell of which kind the
                // hash is.
                bcrypt::verify(&password, &hash).unwrap_or(false)
                    && password.len() <= BCRYPT_MAX_BYTES
            }
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
                (format!("$2b${BCRYPT_COST}$"), password.len() <= BCRYPT_MAX_BYTES)
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

    #[test]
    fn common_passwords_are_weak_and_odd_ones_are_not() {
        for common in ["password", "12345678", "qwertyuiop", "iloveyou", "11111111", "p@ssw0rd"] {
            assert_eq!(
                weakness(common, PasswordHasher::Argon2id),
                Some(Weakness::Common),
                "{common}"
            );
        }
        for good in ["correct horse battery", "SecurePass123!", "ночной поезд", "xkwq-92-tolb"]
        {
            assert_eq!(weakness(good, PasswordHasher::Argon2id), None, "{good}");
        }
    }

    #[test]
    fn bcrypt_never_cuts_a_password() {
        let long = "é".repeat(37);
        assert_eq!(weakness(&long, PasswordHasher::Bcrypt), Some(Weakness::TooLongForBcrypt));
        assert_eq!(weakness(&long, PasswordHasher::Argon2id), None);
    }
}
