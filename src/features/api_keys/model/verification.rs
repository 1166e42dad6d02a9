//! Another service's question whether a key is good, and the answer.

use crate::core::clock::Timestamp;
use crate::core::error::Loc;
use crate::http::quota::Allowance;
use crate::http::{Checked, Fields, Rules};
use crate::security::{Denial, Scope};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// Longest key that is looked at.
const MAX_KEY: usize = 1000;
const MAX_SCOPE: usize = 100;
const MAX_IP: usize = 100;

/// The question whether a key is good.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"key": "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMQ",
    "scope": "items:read", "ip": "192.0.2.1"}))]
pub struct VerifyApiKey {
    /// The key that was shown to the other service.
    #[schema(min_length = 1, max_length = 1000)]
    key: String,
    /// The scope that is needed there; any key will do, when absent.
    #[schema(max_length = 100)]
    scope: Option<String>,
    /// The address the key was used from there. Without it, a key with a list of addresses is not
    /// good.
    #[schema(max_length = 100)]
    ip: Option<String>,
}

/// A question that keeps the rules.
#[derive(Debug)]
pub struct Question {
    pub(in super::super) key: SecretString,
    pub(in super::super) scope: Option<Scope>,
    pub(in super::super) ip: Option<IpAddr>,
}

impl Checked for VerifyApiKey {
    type Valid = Question;
    const MAX_BYTES: usize = 8192;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> Question {
        let ip = self.ip.and_then(|text| {
            if !fields.is_within(vec![Loc::Name("ip".into())], &text, 0..=MAX_IP) {
                return None;
            }
            let ip = text.parse::<IpAddr>().ok();
            if ip.is_none() {
                let msg = "Value error, it is not an IP address such as 192.0.2.1";
                fields.add("ip", "value_error", msg, text);
            }
            ip.map(|ip| ip.to_canonical())
        });
        Question {
            key: fields.text("key", self.key, 1..=MAX_KEY).into(),
            scope: self.scope.and_then(|text| fields.parsed("scope", &text, MAX_SCOPE)),
            ip,
        }
    }
}

/// Whether a key is good, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VerificationCode {
    /// It is.
    Valid,
    /// There is no such key.
    NotFound,
    /// It is switched off.
    Inactive,
    /// Its time is over.
    Expired,
    /// It may not be used from there.
    IpNotAllowed,
    /// It lacks the scope.
    ScopeMissing,
    /// Its limit is used up.
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

/// Whether a key is good, and what it may do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VerifiedApiKey {
    /// Whether the code is `VALID`.
    pub valid: bool,
    /// Why it is good or not.
    pub code: VerificationCode,
    /// Its id; null, as all that follows, where there is no such key.
    pub key_id: Option<i64>,
    /// What people call it.
    #[schema(example = "CI pipeline")]
    pub name: Option<String>,
    /// What it may do, in canonical order.
    #[schema(example = "read,write")]
    pub scopes: Option<String>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// What is left of its limit; null where limits are off or the key was refused before.
    pub rate_limit: Option<KeyRateLimit>,
}

/// What is left of a key's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeyRateLimit {
    /// Requests a minute.
    #[schema(example = 6000)]
    pub limit: u32,
    /// Requests that may still be sent at once.
    #[schema(example = 5999)]
    pub remaining: u32,
    /// Whole seconds until all may be sent again; at 0 `remaining`, until the next one may.
    #[schema(example = 1)]
    pub reset: u64,
}

impl From<Allowance> for KeyRateLimit {
    fn from(allowance: Allowance) -> Self {
        let Allowance { per_minute, remaining, reset, .. } = allowance;
        Self { limit: per_minute, remaining, reset }
    }
}
