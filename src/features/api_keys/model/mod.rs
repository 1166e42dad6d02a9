//! What an API key is, in the database and on the wire.

mod trail;
mod usage;
mod verification;

pub use trail::{AuditFilter, AuditLog};
pub use usage::{Granularity, UsageBucket, UsageCounts, UsageFilter, UsageReport};
pub use verification::{KeyRateLimit, Question, VerificationCode, VerifiedApiKey, VerifyApiKey};

use crate::core::clock::Timestamp;
use crate::http::{
    Checked, Fields, FromQuery, QueryPairs, Rules, double_option, double_option_time, not_null,
    time,
};
use crate::security::{AddressList, Bounds, Key, Scopes};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use utoipa::{IntoParams, ToSchema};

/// An API key as clients see it: never the secret.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct ApiKey {
    /// Its id; never used again.
    #[schema(example = 7)]
    pub id: i64,
    /// What people call it.
    #[schema(example = "CI pipeline")]
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What it may do, always in the same order: `admin,read,write`, then narrower ones.
    #[schema(example = "read,write")]
    pub scopes: String,
    /// Whether it works, unless it has expired.
    pub is_active: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// From where.
    pub last_used_ip: Option<String>,
    /// The addresses it may be used from, with commas; null is every address.
    #[schema(example = "192.0.2.1,198.51.100.0/24")]
    pub allowed_ips: Option<String>,
    /// Who made it.
    pub created_by_user_id: Option<i64>,
    /// Requests a minute; null is the server's default.
    pub rate_limit_per_minute: Option<i64>,
    /// The key whose place it took.
    pub rotated_from_id: Option<i64>,
    /// The key that took its place.
    pub rotated_to_id: Option<i64>,
    /// Until when it works beside the key that took its place.
    pub grace_expires_at: Option<Timestamp>,
    /// When another key took its place.
    #[serde(skip)]
    pub(super) rotated_at: Option<Timestamp>,
}

impl From<&Key> for ApiKey {
    /// The key as it is in memory, where nobody keeps when it was used and when it was rotated.
    fn from(key: &Key) -> Self {
        let told = &key.told;
        Self {
            id: key.id,
            name: key.name.to_string(),
            description: told.description.clone(),
            scopes: told.scopes.clone(),
            is_active: key.is_active(),
            created_at: Timestamp(told.created_at),
            expires_at: told.expires_at.map(Timestamp),
            last_used_at: None,
            last_used_ip: None,
            allowed_ips: told.allowed_ips.clone(),
            created_by_user_id: told.created_by_user_id,
            rate_limit_per_minute: key.rate_limit.map(|limit| limit.get().into()),
            rotated_from_id: told.rotated_from_id,
            rotated_to_id: told.rotated_to_id,
            grace_expires_at: key.grace_expires_at.map(Timestamp),
            rotated_at: None,
        }
    }
}

impl ApiKey {
    /// When it ends: the earlier of its own end and that of its overlap with another.
    pub fn ends_at(&self) -> Option<Timestamp> {
        [self.expires_at, self.grace_expires_at].into_iter().flatten().min()
    }

    /// What bounds it.
    pub(super) fn bounds(&self) -> Bounds {
        let ends_at = self.ends_at().map(|end| end.0);
        let addresses = self.allowed_ips.as_deref();
        Bounds::of_columns(&self.scopes, addresses, ends_at, self.rate_limit_per_minute)
    }
}

/// A key and its secret, which is never shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedApiKey {
    /// The key's properties.
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// The secret. Store it now: only its hash is kept.
    #[schema(example = "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMQ")]
    pub key: String,
}

/// A new key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "CI pipeline", "description": "Deploys the site", "scopes": "read,write",
    "expires_at": "2099-12-31T23:59:59Z", "allowed_ips": "192.0.2.1,198.51.100.0/24"}))]
pub struct CreateApiKey {
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    #[schema(max_length = 1000)]
    description: Option<String>,
    /// `admin`, `read`, `write`, or narrower ones such as `conversations:read`, with commas.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(default = "read", max_length = 1000, nullable = false)]
    scopes: Option<String>,
    /// A time in the future; never, when absent or null.
    #[serde(default, deserialize_with = "time")]
    expires_at: Option<DateTime<Utc>>,
    /// Addresses and networks, separated by commas; everywhere, when absent or null.
    #[schema(max_length = 10_000)]
    allowed_ips: Option<String>,
    /// Requests a minute; the server's default, when absent or null.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    rate_limit_per_minute: Option<i64>,
}

/// A new key that keeps the rules.
#[derive(Debug)]
pub struct NewApiKey {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) scopes: Scopes,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) allowed_ips: Option<AddressList>,
    pub(super) rate_limit: Option<NonZeroU32>,
}

/// Changes to a key; only the fields sent change. `null` clears those that may be null.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "CI pipeline (new)", "scopes": "read", "expires_at": null}))]
pub struct UpdateApiKey {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(min_length = 1, max_length = 255, nullable = false)]
    name: Option<String>,
    #[serde(default, deserialize_with = "double_option")]
    #[schema(max_length = 1000, value_type = Option<String>)]
    description: Option<Option<String>>,
    /// `admin`, `read`, `write`, or narrower ones such as `conversations:read`, with commas.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    scopes: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    is_active: Option<bool>,
    /// A time in the future; null is never.
    #[serde(default, deserialize_with = "double_option_time")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    expires_at: Option<Option<DateTime<Utc>>>,
    /// Addresses and networks, separated by commas; null is everywhere.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<String>, max_length = 10_000)]
    allowed_ips: Option<Option<String>>,
    /// Requests a minute; null is the server's default.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000)]
    rate_limit_per_minute: Option<Option<i64>>,
}

/// Changes that keep the rules. In each field `None` is no change.
#[derive(Debug)]
pub struct ApiKeyChanges {
    pub(super) name: Option<String>,
    pub(super) description: Option<Option<String>>,
    pub(super) scopes: Option<Scopes>,
    pub(super) is_active: Option<bool>,
    pub(super) expires_at: Option<Option<DateTime<Utc>>>,
    pub(super) allowed_ips: Option<Option<AddressList>>,
    pub(super) rate_limit: Option<Option<NonZeroU32>>,
}

/// How to put a new key in the place of one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"grace_period_seconds": 3600}))]
pub struct RotateApiKey {
    /// How long the old key still works beside the new one.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(minimum = 0, maximum = 604_800, default = 0, nullable = false)]
    grace_period_seconds: Option<i64>,
}

/// A rotation that keeps the rules.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// How long the old key still works.
    pub(super) grace: TimeDelta,
}

/// Which keys to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct KeyFilter {
    /// Whether to list those switched off, too.
    #[param(default = false, required = false)]
    pub include_inactive: bool,
    /// Only keys that were not used for so many days, nor made in them.
    #[param(minimum = 1, maximum = 3650)]
    pub unused_for_days: Option<i64>,
    /// Only keys with this in their names, without regard to case.
    #[param(max_length = 255)]
    pub q: Option<String>,
}

/// How far ahead to look.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Horizon {
    /// Days from now.
    #[param(minimum = 1, maximum = 3650, default = 7, required = false)]
    pub days: i64,
}

/// What the clean-up did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"deactivated_count": 2, "message": "Deactivated 2 expired key(s)"}))]
pub struct CleanupReport {
    /// Keys switched off.
    pub deactivated_count: usize,
    /// The same in words.
    pub message: String,
}

const MAX_NAME: usize = 255;
const MAX_DESCRIPTION: usize = 1000;
const MAX_SCOPES: usize = 1000;
/// Room for a hundred of the longest networks, with blanks between them.
const MAX_ADDRESSES: usize = 10_000;
const MAX_RATE_LIMIT: i64 = 1_000_000_000;
/// A week.
const MAX_GRACE_SECONDS: i64 = 604_800;

fn in_future(fields: &mut Fields, rules: &Rules<'_>, time: Option<DateTime<Utc>>) {
    if let Some(time) = time.filter(|time| *time <= rules.now) {
        let msg = "Value error, expires_at must be in the future";
        fields.add("expires_at", "value_error", msg, time.to_rfc3339());
    }
}

fn description(fields: &mut Fields, text: Option<String>) -> Option<String> {
    text.map(|text| fields.text("description", text, 0..=MAX_DESCRIPTION))
}

fn rate_limit(fields: &mut Fields, per_minute: Option<i64>) -> Option<NonZeroU32> {
    let per_minute = fields.integer("rate_limit_per_minute", per_minute?, 1..=MAX_RATE_LIMIT);
    u32::try_from(per_minute).ok().and_then(NonZeroU32::new)
}

impl Checked for RotateApiKey {
    type Valid = Rotation;
    const OPTIONAL: bool = true;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> Rotation {
        let seconds = self.grace_period_seconds.unwrap_or(0);
        let seconds = fields.integer("grace_period_seconds", seconds, 0..=MAX_GRACE_SECONDS);
        // One that breaks the rule may be too large for any time.
        Rotation { grace: TimeDelta::try_seconds(seconds).unwrap_or_default() }
    }
}

impl Checked for CreateApiKey {
    type Valid = NewApiKey;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> NewApiKey {
        in_future(fields, rules, self.expires_at);
        let scopes = self.scopes.and_then(|text| fields.parsed("scopes", &text, MAX_SCOPES));
        NewApiKey {
            name: fields.text("name", self.name, 1..=MAX_NAME),
            description: description(fields, self.description),
            scopes: scopes.unwrap_or(Scopes::READ),
            expires_at: self.expires_at,
            allowed_ips: self
                .allowed_ips
                .and_then(|text| fields.parsed("allowed_ips", &text, MAX_ADDRESSES)),
            rate_limit: rate_limit(fields, self.rate_limit_per_minute),
        }
    }
}

impl Checked for UpdateApiKey {
    type Valid = ApiKeyChanges;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> ApiKeyChanges {
        in_future(fields, rules, self.expires_at.flatten());
        ApiKeyChanges {
            name: self.name.map(|name| fields.text("name", name, 1..=MAX_NAME)),
            description: self.description.map(|text| description(fields, text)),
            scopes: self.scopes.and_then(|text| fields.parsed("scopes", &text, MAX_SCOPES)),
            is_active: self.is_active,
            expires_at: self.expires_at,
            allowed_ips: self.allowed_ips.map(|list| {
                list.and_then(|text| fields.parsed("allowed_ips", &text, MAX_ADDRESSES))
            }),
            rate_limit: self.rate_limit_per_minute.map(|n| rate_limit(fields, n)),
        }
    }
}

impl FromQuery for KeyFilter {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self {
            include_inactive: query.flag("include_inactive").unwrap_or(false),
            unused_for_days: query.integer("unused_for_days", 1..=3650),
            q: query.text("q", MAX_NAME),
        }
    }
}

impl FromQuery for Horizon {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { days: query.integer("days", 1..=3650).unwrap_or(7) }
    }
}
