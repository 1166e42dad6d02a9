//! The keys of the audit log, and the destinations of its anchors.

use super::reader::Reader;
use secrecy::{ExposeSecret, SecretString};
use std::path::PathBuf;
use url::Url;

/// Minimum length of an audit key in bytes. A shorter key could be guessed.
const MIN_BYTES: usize = 32;

/// `AUDIT_KEY`, `AUDIT_KEYS_OLD`, `AUDIT_ANCHOR_FILE` and `AUDIT_ANCHOR_URL`.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The key that signs new audit entries. If it is unset, SQLite uses a key file beside the
    /// database.
    pub key: Option<SecretString>,
    /// Earlier keys, which verify older audit entries.
    pub keys_old: Vec<SecretString>,
    /// `AUDIT_ANCHOR_FILE`: the server appends the last entry of the chain to it, and `verify`
    /// compares the chain with the newest line.
    pub anchor_file: Option<PathBuf>,
    /// `AUDIT_ANCHOR_URL`: the server sends the last entry of the chain to it. The whole URL is
    /// secret, because its path or query may contain a credential.
    pub anchor_url: Option<SecretString>,
}

pub(super) fn read(r: &mut Reader) -> AuditConfig {
    let what =
        format!("must have at least {MIN_BYTES} bytes; generate one with `openssl rand -hex 32`");
    let key = r.secret("AUDIT_KEY");
    if key.as_ref().is_some_and(|key| key.expose_secret().len() < MIN_BYTES) {
        r.problem("AUDIT_KEY", what);
    }
    if key.as_ref().is_some_and(|key| key.expose_secret().contains(',')) {
        r.problem("AUDIT_KEY", "must not contain a comma, the separator of AUDIT_KEYS_OLD");
    }
    let listed = r.secret("AUDIT_KEYS_OLD");
    let listed = listed.as_ref().map_or("", |keys| keys.expose_secret());
    let keys = listed.split(',').map(str::trim).filter(|key| !key.is_empty());
    let keys_old: Vec<SecretString> = keys.map(Into::into).collect();
    if keys_old.iter().any(|key| key.expose_secret().len() < MIN_BYTES) {
        r.problem("AUDIT_KEYS_OLD", format_args!("contains a key of less than {MIN_BYTES} bytes"));
    }
    let anchor_file = r.text("AUDIT_ANCHOR_FILE").map(PathBuf::from);
    AuditConfig { key, keys_old, anchor_file, anchor_url: anchor_url(r) }
}

fn anchor_url(r: &mut Reader) -> Option<SecretString> {
    let text = r.secret("AUDIT_ANCHOR_URL")?;
    let url = Url::parse(text.expose_secret()).ok();
    if url.is_none_or(|url| !matches!(url.scheme(), "http" | "https")) {
        r.problem("AUDIT_ANCHOR_URL", "must be a URL such as https://example.com/anchors");
        return None;
    }
    Some(text)
}
