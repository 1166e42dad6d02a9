//! The keys of the audit trail.

use super::reader::Reader;
use secrecy::{ExposeSecret, SecretString};

/// Shorter keys could be guessed.
const MIN_BYTES: usize = 32;

/// `AUDIT_KEY` and `AUDIT_KEYS_OLD`.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// New rows are hashed with it. Unset, on SQLite, a file beside the database has it.
    pub key: Option<SecretString>,
    /// Old rows were hashed with these.
    pub keys_old: Vec<SecretString>,
}

pub(super) fn read(r: &mut Reader) -> AuditConfig {
    let what = format!("must have at least {MIN_BYTES} bytes: `openssl rand -hex 32` makes one");
    let key = r.secret("AUDIT_KEY");
    if key.as_ref().is_some_and(|key| key.expose_secret().len() < MIN_BYTES) {
        r.problem("AUDIT_KEY", &what);
    }
    if key.as_ref().is_some_and(|key| key.expose_secret().contains(',')) {
        r.problem("AUDIT_KEY", "must have no comma: AUDIT_KEYS_OLD could not list it one day");
    }
    let listed = r.secret("AUDIT_KEYS_OLD");
    let listed = listed.as_ref().map_or("", |keys| keys.expose_secret());
    let keys = listed.split(',').map(str::trim).filter(|key| !key.is_empty());
    let keys_old: Vec<SecretString> = keys.map(Into::into).collect();
    if keys_old.iter().any(|key| key.expose_secret().len() < MIN_BYTES) {
        r.problem("AUDIT_KEYS_OLD", format_args!("has a key that is too short: each {what}"));
    }
    AuditConfig { key, keys_old }
}
