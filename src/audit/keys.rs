//! The audit keys, which sign the chain: from the configuration or from a file beside the database.

use crate::core::config::{Config, DatabaseUrl};
use crate::db::files::{sync_directory_of, with_suffix};
use hmac::{Hmac, KeyInit};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::fmt::{self, Debug, Formatter};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Random bytes of a generated key; its file holds them in hexadecimal.
const RANDOM_BYTES: usize = 32;

/// The reason that no audit key is available.
#[derive(Debug, thiserror::Error)]
pub enum AuditKeyError {
    /// `AUDIT_KEY` is not set on Postgres, where all servers must share one key.
    #[error(
        "AUDIT_KEY must be set: on Postgres every server needs the same one; generate it with \
         `openssl rand -hex 32`"
    )]
    Unset,
    /// The key file beside the database cannot be created or read.
    #[error("cannot use the audit key file {}: {cause}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
}

/// An audit key, ready to sign with. The id distinguishes keys and reveals nothing of the secret.
#[derive(Clone)]
pub(super) struct AuditKey {
    pub(super) id: u32,
    pub(super) mac: Hmac<Sha256>,
}

/// The key that signs new entries, and earlier keys that verify old ones.
#[derive(Clone)]
pub struct AuditKeys {
    pub(super) current: AuditKey,
    old: Vec<AuditKey>,
}

impl Debug for AuditKeys {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let old: Vec<_> = self.old.iter().map(|key| key.id).collect();
        f.debug_struct("AuditKeys").field("current", &self.current.id).field("old", &old).finish()
    }
}

impl AuditKeys {
    /// Loads `AUDIT_KEY` and `AUDIT_KEYS_OLD`. On SQLite without `AUDIT_KEY`, the key is in a file
    /// beside the database, which is created if it does not exist. With `AUDIT_KEY`, that file is
    /// not read: the right to create files there must not include adding a key.
    pub fn load(config: &Config) -> Result<Self, AuditKeyError> {
        Self::load_with(config, read_or_create)
    }

    /// Fails if `AUDIT_KEY` is not set and the database cannot have a key file. Called before a
    /// database is migrated.
    pub fn require(config: &Config) -> Result<(), AuditKeyError> {
        let has_file = matches!(config.database_url, DatabaseUrl::Sqlite(_));
        if has_file || config.audit.key.is_some() { Ok(()) } else { Err(AuditKeyError::Unset) }
    }

    /// Like [`AuditKeys::load`], but a missing key file is an error.
    pub fn load_existing(config: &Config) -> Result<Self, AuditKeyError> {
        Self::load_with(config, read)
    }

    fn load_with(
        config: &Config,
        from_file: impl FnOnce(&Path) -> Result<SecretString, AuditKeyError>,
    ) -> Result<Self, AuditKeyError> {
        let old = config.audit.keys_old.iter().map(AuditKey::new).collect();
        let current = match (&config.audit.key, file_of(config)) {
            (Some(key), _) => AuditKey::new(key),
            (None, Some(path)) => AuditKey::new(&from_file(&path)?),
            (None, None) => return Err(AuditKeyError::Unset),
        };
        Ok(Self { current, old })
    }

    /// The key file beside the database, if it exists and is ignored because `AUDIT_KEY` is set.
    pub fn ignored_file(config: &Config) -> Option<PathBuf> {
        config.audit.key.as_ref()?;
        file_of(config).filter(|path| path.exists())
    }

    /// The key with the id `id`.
    pub(super) fn find(&self, id: i64) -> Option<&AuditKey> {
        std::iter::once(&self.current).chain(&self.old).find(|key| i64::from(key.id) == id)
    }
}

impl AuditKey {
    fn new(secret: &SecretString) -> Self {
        let bytes = secret.expose_secret().as_bytes();
        let digest = Sha256::new().chain_update(b"octopus-audit-key-id\0").chain_update(bytes);
        let [a, b, c, d, ..]: [u8; 32] = digest.finalize().into();
        let mac = Hmac::new_from_slice(bytes).expect("HMAC accepts keys of any length");
        Self { id: u32::from_be_bytes([a, b, c, d]), mac }
    }
}

/// The path of the key file for an SQLite database, which may not exist.
fn file_of(config: &Config) -> Option<PathBuf> {
    match &config.database_url {
        DatabaseUrl::Sqlite(database) => Some(file_beside(database)),
        DatabaseUrl::Postgres(_) => None,
    }
}

/// `octopus.db.audit-key` for `octopus.db`.
fn file_beside(database: &Path) -> PathBuf {
    with_suffix(database, ".audit-key")
}

fn read(path: &Path) -> Result<SecretString, AuditKeyError> {
    let failed = |cause| AuditKeyError::File { path: path.to_owned(), cause };
    let text = fs::read_to_string(path).map_err(failed)?;
    if text.trim().len() < 2 * RANDOM_BYTES {
        let cause = io::Error::new(io::ErrorKind::InvalidData, "it is truncated");
        return Err(failed(cause));
    }
    Ok(text.trim().into())
}

/// Reads the key file, or creates it. Servers that start concurrently use the same key.
fn read_or_create(path: &Path) -> Result<SecretString, AuditKeyError> {
    if path.exists() {
        return read(path);
    }
    let failed = |cause| AuditKeyError::File { path: path.to_owned(), cause };
    let mut random = [0; RANDOM_BYTES];
    rand::rng().fill_bytes(&mut random);
    // Write and sync under a temporary name, then link: no process reads a partial key, and a power
    // failure does not lose it.
    let suffix = format!(".{}-{}", std::process::id(), rand::rng().next_u32());
    let temporary = with_suffix(path, &suffix);
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(hex::encode(random).as_bytes())?;
        file.sync_all()
    };
    let linked = write().and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    // Sync the directory, so that the name survives a power failure as well. Errors are ignored, as
    // not every file system supports this.
    let _ = sync_directory_of(path);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => read(path),
    }
}
