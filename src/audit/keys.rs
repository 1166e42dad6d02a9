//! The keys the chain is made with: from the configuration, or from a file beside the database.

use crate::core::config::{Config, DatabaseUrl};
use hmac::{Hmac, KeyInit};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::fmt::{self, Debug, Formatter};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Random bytes of a key we make; its file holds them in hexadecimal digits.
const RANDOM_BYTES: usize = 32;

/// Why there is no key to make the chain with.
#[derive(Debug, thiserror::Error)]
pub enum AuditKeyError {
    /// On Postgres several servers must have the same one.
    #[error(
        "AUDIT_KEY must be set: on Postgres every server needs the same one; make one with \
         `openssl rand -hex 32`"
    )]
    Unset,
    /// The file beside the database cannot be made or read.
    #[error("cannot use the audit key's file {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
}

/// One key, ready to hash with. Its id tells it from others, and nothing about it.
#[derive(Clone)]
pub(super) struct AuditKey {
    pub(super) id: u32,
    pub(super) mac: Hmac<Sha256>,
}

/// The key that new rows are hashed with, and those that old rows were.
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
    /// `AUDIT_KEY` and `AUDIT_KEYS_OLD`. Where `AUDIT_KEY` is not set, on SQLite, the key is in the
    /// file beside the database, which is created if it does not exist. Where it is set, that file
    /// is not read: whoever can create files there must not be able to add a key.
    pub fn load(config: &Config) -> Result<Self, AuditKeyError> {
        Self::load_with(config, read_or_make)
    }

    /// Fails where `AUDIT_KEY` is missing and no file can stand in for it: to be asked before a
    /// database is migrated.
    pub fn require(config: &Config) -> Result<(), AuditKeyError> {
        let has_file = matches!(config.database_url, DatabaseUrl::Sqlite(_));
        if has_file || config.audit.key.is_some() { Ok(()) } else { Err(AuditKeyError::Unset) }
    }

    /// The same, but a file that is not there is an error.
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

    /// The key file beside the database that is not read because `AUDIT_KEY` is set.
    pub fn ignored_file(config: &Config) -> Option<PathBuf> {
        config.audit.key.as_ref()?;
        file_of(config).filter(|path| path.exists())
    }

    /// The key with this id.
    pub(super) fn find(&self, id: i64) -> Option<&AuditKey> {
        std::iter::once(&self.current).chain(&self.old).find(|key| i64::from(key.id) == id)
    }
}

impl AuditKey {
    fn new(secret: &SecretString) -> Self {
        let bytes = secret.expose_secret().as_bytes();
        let digest = Sha256::new().chain_update(b"octopus-audit-key-id\0").chain_update(bytes);
        let [a, b, c, d, ..]: [u8; 32] = digest.finalize().into();
        let mac = Hmac::new_from_slice(bytes).expect("HMAC takes keys of every length");
        Self { id: u32::from_be_bytes([a, b, c, d]), mac }
    }
}

/// The key file of a SQLite database, whether it exists or not.
fn file_of(config: &Config) -> Option<PathBuf> {
    match &config.database_url {
        DatabaseUrl::Sqlite(database) => Some(file_beside(database)),
        DatabaseUrl::Postgres(_) => None,
    }
}

/// `octopus.db.audit-key` for `octopus.db`.
fn file_beside(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".audit-key");
    PathBuf::from(name)
}

fn read(path: &Path) -> Result<SecretString, AuditKeyError> {
    let failed = |cause| AuditKeyError::File { path: path.to_owned(), cause };
    let text = fs::read_to_string(path).map_err(failed)?;
    if text.trim().len() < 2 * RANDOM_BYTES {
        let cause = io::Error::new(io::ErrorKind::InvalidData, "it is cut short");
        return Err(failed(cause));
    }
    Ok(text.trim().into())
}

/// Servers that start at the same time end up with the same key: the first one's.
fn read_or_make(path: &Path) -> Result<SecretString, AuditKeyError> {
    if path.exists() {
        return read(path);
    }
    let failed = |cause| AuditKeyError::File { path: path.to_owned(), cause };
    let mut random = [0; RANDOM_BYTES];
    rand::rng().fill_bytes(&mut random);
    // Whole before it has its name: nobody reads half a key, or loses one to a power cut.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}-{}", std::process::id(), rand::rng().next_u32()));
    let unfinished = PathBuf::from(unfinished);
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(hex::encode(random).as_bytes())?;
        file.sync_all()
    };
    let linked = write().and_then(|()| fs::hard_link(&unfinished, path));
    let _ = fs::remove_file(&unfinished);
    // Nor loses its name, once rows are hashed with it; not every file system can promise that.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => read(path),
    }
}
