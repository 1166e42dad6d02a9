//! Models for verifying an API key: request and response bodies.

use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::http::{Checked, Fields, Rules, SHORT_TEXTS_BYTES};
use crate::security::rate_limit::RemainingQuota;
use crate::security::{Denial, Scope};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// Maximum length of a key, in characters.
const MAX_KEY: usize = 1000;
const MAX_SCOPE: usize = 100;
const MAX_IP: usize = 100;

/// Request to verify an API key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"key": "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMQ",
    "scope": "items:read", "ip": "192.0.2.1"}))]
pub struct VerifyApiKey {
    /// The key that the other service received.
    #[schema(min_length = 1, max_length = 1000)]
    key: String,
    /// Required scope. If absent, no scope is required.
    #[schema(max_length = 100)]
    scope: Option<String>,
    /// Client address from which the key was used. If absent, a key with `allowed_ips` is not
    /// valid.
    #[schema(max_length = 100)]
    ip: Option<String>,
}

/// A validated [`VerifyApiKey`].
#[derive(Debug)]
pub struct VerificationRequest {
    pub(in crate::features::api_keys) key: SecretString,
    pub(in crate::features::api_keys) scope: Option<Scope>,
    pub(in crate::features::api_keys) ip: Option<IpAddr>,
}

impl Checked for VerifyApiKey {
    type Valid = VerificationRequest;
    const MAX_BYTES: usize = SHORT_TEXTS_BYTES;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> VerificationRequest {
        let ip = self.ip.and_then(|text| {
            if !fields.is_within(vec![Loc::Name("ip".into())], &text, 0..=MAX_IP) {
                return None;
            }
            let ip = text.parse::<IpAddr>().ok();
            if ip.is_none() {
                let msg = "Value error, not an IP address; expected for example 192.0.2.1";
                fields.add("ip", "value_error", msg, text);
            }
            ip.map(|ip| ip.to_canonical())
        });
        VerificationRequest {
            key: fields.text("key", self.key, 1..=MAX_KEY).into(),
            scope: self.scope.and_then(|text| fields.parsed("scope", &text, MAX_SCOPE)),
            ip,
        }
    }
}

/// Result of verifying an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VerificationCode {
    /// The key is valid.
    Valid,
    /// The key does not exist.
    NotFound,
    /// The key is deactivated.
    Inactive,
    /// The key has expired.
    Expired,
    /// The client address is not in `allowed_ips`.
    IpNotAllowed,
    /// The key lacks the required scope.
    ScopeMissing,
    /// The key is over its rate limit.
    RateLimited,
}

impl From<Denial> for VerificationCode {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Expired => Self::Expired,
            Denial::Inactive | Denial::Unreadable => Self::Inactive,
            Denial::Address => Self::IpNotAllowed,
        }
    }
}

/// Whether an API key is valid, and its properties.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VerifiedApiKey {
    /// Whether `code` is `VALID`.
    pub valid: bool,
    /// Result of the verification.
    pub code: VerificationCode,
    /// Id of the key. This and the following fields are null if the key does not exist.
    pub key_id: Option<i64>,
    /// Display name.
    #[schema(example = "CI pipeline")]
    pub name: Option<String>,
    /// Comma-separated scopes, in canonical order.
    #[schema(example = "read,write")]
    pub scopes: Option<String>,
    /// Expiry, including the end of a grace period; null if the key does not expire.
    pub expires_at: Option<Timestamp>,
    /// Remaining rate limit; null if rate limits are off or the key failed an earlier check.
    pub rate_limit: Option<KeyRateLimit>,
}

/// Remaining rate limit of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeyRateLimit {
    /// Requests per minute.
    #[schema(example = 6000)]
    pub limit: u32,
    /// Requests allowed now.
    #[schema(example = 5999)]
    pub remaining: u32,
    /// Seconds until the full limit is available; if `remaining` is 0, until the next request is
    /// allowed.
    #[schema(example = 1)]
    pub reset: u64,
}

impl From<RemainingQuota> for KeyRateLimit {
    fn from(quota: RemainingQuota) -> Self {
        let RemainingQuota { per_minute, remaining, reset, .. } = quota;
        Self { limit: per_minute, remaining, reset }
    }
}
