//! The keys of the audit log, and where its anchors go.

use super::reader::Reader;
use secrecy::{ExposeSecret, SecretString};
use std::path::PathBuf;
use url::Url;

/// Shorter keys could be guessed.
const MIN_BYTES: usize = 32;

/// `AUDIT_KEY`, `AUDIT_KEYS_OLD`, `AUDIT_ANCHOR_FILE` and `AUDIT_ANCHOR_URL`.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// New rows are hashed with it. Unset, on SQLite, a file beside the database has it.
    pub key: Option<SecretString>,
    /// Old rows were hashed with these.
    pub keys_old: Vec<SecretString>,
    /// `AUDIT_ANCHOR_FILE`: the end of the chain is appended to it, and `verify` compares the chain
    /// with its newest line.
    pub anchor_file: Option<PathBuf>,
    /// `AUDIT_ANCHOR_URL`: the end of the chain is sent there. All of it is a secret, as its path or
    /// query may be what lets one in.
    pub anchor_url: Option<SecretString>,
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
