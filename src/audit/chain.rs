//! Audit entries as a hash chain: the HMAC of each covers the HMAC of the previous one.

use super::keys::AuditKey;
use super::time::Time;
use crate::core::clock::Timestamp;
use chrono::{DateTime, Utc};
use hmac::Mac;
use serde::Serialize;
use serde_json::value::RawValue;

/// Domain separation: the first input of every hash, so that no other use of the key gives the same
/// one.
const DOMAIN: &[u8] = b"octopus-audit-v1\0";

/// An HMAC-SHA256.
pub type Hash = [u8; 32];

/// The previous hash of the first entry.
pub const GENESIS_HASH: Hash = [0; 32];

/// An audit entry as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    /// The position in the chain: 1, 2, 3 …
    pub seq: i64,
    /// The API key that was changed.
    pub api_key_id: Option<i64>,
    /// The name of that key at the time.
    pub api_key_name: Option<String>,
    /// The operation; see `Action`.
    pub action: String,
    /// The kind of caller; see `PerformedBy`.
    pub performed_by: String,
    /// The API key of the caller.
    pub performed_by_key_id: Option<i64>,
    /// The name of that key at the time.
    pub performed_by_key_name: Option<String>,
    /// The client address.
    pub performed_by_ip: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// Details, as JSON.
    pub details: String,
    /// The time of the operation.
    pub timestamp: Time,
    /// The id of the audit key that signed the entry; like the next two fields, `None` in entries
    /// older than the chain.
    pub hash_key_id: Option<i64>,
    /// The JSON that the hash covers.
    pub payload: Option<String>,
    /// The HMAC-SHA256.
    pub hash: Option<Vec<u8>>,
}

/// The hashed columns, in the order in which they are hashed.
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

/// A JSON object, unchanged; anything else, which only an entry older than the chain can have, as a
/// string.
#[derive(Serialize)]
#[serde(untagged)]
enum Details<'r> {
    Object(&'r RawValue),
    Text(&'r str),
}

impl<'r> Details<'r> {
    /// Different texts stay different: an object with spaces around it is hashed as a string.
    fn of(text: &'r str) -> Self {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) if raw.get() == text && text.starts_with('{') => Self::Object(raw),
            _ => Self::Text(text),
        }
    }
}

impl Row {
    /// The JSON that the hash covers.
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

    /// Returns whether the columns match the payload.
    pub(super) fn is_as_written(&self) -> bool {
        self.timestamp.is_exact && self.to_payload().ok() == self.payload
    }

    /// Signs the entry with `key`; `previous` is the hash of the previous entry. Returns the hash.
    pub(super) fn chain(&mut self, key: &AuditKey, previous: &Hash) -> serde_json::Result<Hash> {
        let payload = self.to_payload()?;
        let hash = hash(key, self.seq, self.timestamp.at, previous, &payload);
        self.hash_key_id = Some(key.id.into());
        self.payload = Some(payload);
        self.hash = Some(hash.to_vec());
        Ok(hash)
    }
}

/// HMAC-SHA256(key, domain ‖ u32be key id ‖ u64be seq ‖ u64be microseconds ‖ previous hash ‖
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

/// The id of the previous key, from the details of an `Action::ChangeAuditKey` entry.
pub(super) fn previous_key(details: &str) -> Option<i64> {
    serde_json::from_str::<serde_json::Value>(details).ok()?.get("previous_key_id")?.as_i64()
}
