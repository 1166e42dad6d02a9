//! Rows of the trail, each tied to the one before it by an HMAC.

use super::keys::AuditKey;
use super::time::Time;
use crate::core::clock::Timestamp;
use chrono::{DateTime, Utc};
use hmac::Mac;
use serde::Serialize;
use serde_json::value::RawValue;

/// What the hash of every row begins with: no other use of the key makes the same.
const DOMAIN: &[u8] = b"octopus-audit-v1\0";

/// An HMAC-SHA256.
pub type Hash = [u8; 32];

/// What stands before the first row.
pub const BEGINNING: Hash = [0; 32];

/// A row as it is stored.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    /// Its place in the chain: 1, 2, 3 …
    pub seq: i64,
    /// The key something was done to.
    pub api_key_id: Option<i64>,
    /// That key's name at the time.
    pub api_key_name: Option<String>,
    /// What was done.
    pub action: String,
    /// By what kind of caller.
    pub performed_by: String,
    /// The key of who did it.
    pub performed_by_key_id: Option<i64>,
    /// That key's name at the time.
    pub performed_by_key_name: Option<String>,
    /// Where they called from.
    pub performed_by_ip: Option<String>,
    /// In which request.
    pub request_id: Option<String>,
    /// JSON.
    pub details: String,
    /// When.
    pub timestamp: Time,
    /// Which key its hash was made with; `None` in rows from before the chain, as the next two.
    pub hash_key_id: Option<i64>,
    /// What its hash covers, beside its place.
    pub payload: Option<String>,
    /// Its HMAC.
    pub hash: Option<Vec<u8>>,
}

/// The columns of [`Row`], in every statement that gives one.
macro_rules! columns {
    () => {
        "seq, api_key_id, api_key_name, action, performed_by, performed_by_key_id, \
         performed_by_key_name, performed_by_ip, request_id, details, timestamp, hash_key_id, \
         payload, hash"
    };
}
pub(crate) use columns;

/// Every column, in the order in which they are hashed.
#[derive(Serialize)]
struct Payload<'r> {
    seq: i64,
    api_key_id: Option<i64>,
    api_key_name: Option<&'r str>,
    action: &'r str,
    performed_by: &'r str,
    performed_by_key_id: Option<i64>,
    performed_by_key_name: Option<&'r str>,
    performed_by_ip: Option<&'r str>,
    request_id: Option<&'r str>,
    details: Details<'r>,
    timestamp: Timestamp,
}

/// An object as it stands; anything else, which only a row from before the chain can have, as text.
#[derive(Serialize)]
#[serde(untagged)]
enum Details<'r> {
    Object(&'r RawValue),
    Text(&'r str),
}

impl<'r> Details<'r> {
    /// No two texts become the same: a space before or after an object is a difference, too.
    fn of(text: &'r str) -> Self {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) if raw.get() == text && text.starts_with('{') => Self::Object(raw),
            _ => Self::Text(text),
        }
    }
}

impl Row {
    /// The row as JSON.
    pub(super) fn to_payload(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Payload {
            seq: self.seq,
            api_key_id: self.api_key_id,
            api_key_name: self.api_key_name.as_deref(),
            action: &self.action,
            performed_by: &self.performed_by,
            performed_by_key_id: self.performed_by_key_id,
            performed_by_key_name: self.performed_by_key_name.as_deref(),
            performed_by_ip: self.performed_by_ip.as_deref(),
            request_id: self.request_id.as_deref(),
            details: Details::of(&self.details),
            timestamp: Timestamp(self.timestamp.at),
        })
    }

    /// Whether its columns are what its payload says.
    pub(super) fn is_as_written(&self) -> bool {
        self.timestamp.is_exact && self.to_payload().ok() == self.payload
    }

    /// Ties it to the row before it, whose hash is `previous`.
    pub(super) fn chain(&mut self, key: &AuditKey, previous: &Hash) -> serde_json::Result<Hash> {
        let payload = self.to_payload()?;
        let hash = hash(key, self.seq, self.timestamp.at, previous, &payload);
        self.hash_key_id = Some(key.id.into());
        self.payload = Some(payload);
        self.hash = Some(hash.to_vec());
        Ok(hash)
    }
}

/// HMAC-SHA256(K, domain ‖ u32be key id ‖ u64be seq ‖ u64be microseconds ‖ previous hash ‖
/// u32be length ‖ payload).
pub(super) fn hash(
    key: &AuditKey,
    seq: i64,
    at: DateTime<Utc>,
    previous: &Hash,
    payload: &str,
) -> Hash {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mac = key.mac.clone().chain_update(DOMAIN).chain_update(key.id.to_be_bytes());
    let mac = mac.chain_update(seq.to_be_bytes()).chain_update(at.timestamp_micros().to_be_bytes());
    let mac = mac.chain_update(previous).chain_update(length.to_be_bytes()).chain_update(payload);
    mac.finalize().into_bytes().into()
}
