//! API keys: rows, request and response bodies, and their validation.

use crate::core::clock::Timestamp;
use crate::http::{
    Checked, Fields, FromQuery, QueryPairs, Rules, double_option, double_option_time, not_null,
    time,
};
use crate::security::secret::Secret;
use crate::security::{AddressList, Bounds, Key, Scopes};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use utoipa::{IntoParams, ToSchema};

/// An API key, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct ApiKey {
    /// Unique id; never reused.
    #[schema(example = 7)]
    pub id: i64,
    /// Display name.
    #[schema(example = "CI pipeline")]
    pub name: String,
    /// Purpose of the key.
    pub description: Option<String>,
    /// Comma-separated scopes, in canonical order: `admin,read,write`, then narrower scopes.
    #[schema(example = "read,write")]
    pub scopes: String,
    /// Whether the key is active. An active key is rejected once it has expired.
    pub is_active: bool,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Expiry; null if the key does not expire.
    pub expires_at: Option<Timestamp>,
    /// Time of the last use; null if never used.
    pub last_used_at: Option<Timestamp>,
    /// Client address of the last use.
    pub last_used_ip: Option<String>,
    /// Comma-separated addresses and networks that may use the key; null allows every address.
    #[schema(example = "192.0.2.1,198.51.100.0/24")]
    pub allowed_ips: Option<String>,
    /// Id of the user who created the key.
    pub created_by_user_id: Option<i64>,
    /// Requests per minute; null uses the server's default.
    pub rate_limit_per_minute: Option<i64>,
    /// Id of the key that this key replaced.
    pub rotated_from_id: Option<i64>,
    /// Id of the key that replaced this key.
    pub rotated_to_id: Option<i64>,
    /// End of the grace period after a rotation.
    pub grace_expires_at: Option<Timestamp>,
    /// Time of the rotation.
    #[serde(skip)]
    pub(in crate::features::api_keys) rotated_at: Option<Timestamp>,
}

impl From<&Key> for ApiKey {
    /// Converts a cached key. The cache does not hold the last use or the time of rotation.
    fn from(key: &Key) -> Self {
        let details = &key.details;
        Self {
            id: key.id,
            name: key.name.to_string(),
            description: details.description.clone(),
            scopes: details.scopes.clone(),
            is_active: key.is_active(),
            created_at: Timestamp(details.created_at),
            expires_at: details.expires_at.map(Timestamp),
            last_used_at: None,
            last_used_ip: None,
            allowed_ips: details.allowed_ips.clone(),
            created_by_user_id: details.created_by_user_id,
            rate_limit_per_minute: key.rate_limit.map(|limit| limit.get().into()),
            rotated_from_id: details.rotated_from_id,
            rotated_to_id: details.rotated_to_id,
            grace_expires_at: key.grace_expires_at.map(Timestamp),
            rotated_at: None,
        }
    }
}

impl ApiKey {
    /// The effective expiry: the earlier of `expires_at` and `grace_expires_at`.
    pub fn ends_at(&self) -> Option<Timestamp> {
        [self.expires_at, self.grace_expires_at].into_iter().flatten().min()
    }

    /// The limits of the key, for comparison with another key.
    pub(crate) fn bounds(&self) -> Bounds {
        let ends_at = self.ends_at().map(|end| end.0);
        let addresses = self.allowed_ips.as_deref();
        Bounds::from_columns(&self.scopes, addresses, ends_at, self.rate_limit_per_minute)
    }
}

/// A new API key with its secret, which is never shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedApiKey {
    /// Properties of the key.
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// The secret. Store it now: the server keeps only its hash.
    #[schema(
        value_type = String,
        example = "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMQ"
    )]
    pub key: Secret,
}

/// Request to create an API key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "CI pipeline", "description": "Deploys the site", "scopes": "read,write",
    "expires_at": "2099-12-31T23:59:59Z", "allowed_ips": "192.0.2.1,198.51.100.0/24"}))]
pub struct CreateApiKey {
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    #[schema(max_length = 1000)]
    description: Option<String>,
    /// Comma-separated scopes: `admin`, `read`, `write`, or narrower ones such as
    /// `conversations:read`.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(default = "read", max_length = 1000, nullable = false)]
    scopes: Option<String>,
    /// Expiry, in the future. If absent or null, the key does not expire.
    #[serde(default, deserialize_with = "time")]
    expires_at: Option<DateTime<Utc>>,
    /// Comma-separated addresses and networks. If absent or null, every address is allowed.
    #[schema(max_length = 10_000)]
    allowed_ips: Option<String>,
    /// Requests per minute. If absent or null, the server's default applies.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    rate_limit_per_minute: Option<i64>,
}

/// A validated [`CreateApiKey`].
#[derive(Debug)]
pub struct NewApiKey {
    pub(in crate::features::api_keys) name: String,
    pub(in crate::features::api_keys) description: Option<String>,
    pub(in crate::features::api_keys) scopes: Scopes,
    pub(in crate::features::api_keys) expires_at: Option<DateTime<Utc>>,
    pub(in crate::features::api_keys) allowed_ips: Option<AddressList>,
    pub(in crate::features::api_keys) rate_limit: Option<NonZeroU32>,
}

/// Request to update an API key. Only the fields that are sent change; `null` clears a nullable
/// field.
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
    /// Comma-separated scopes: `admin`, `read`, `write`, or narrower ones such as
    /// `conversations:read`.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    scopes: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    is_active: Option<bool>,
    /// Expiry, in the future; null removes it.
    #[serde(default, deserialize_with = "double_option_time")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    expires_at: Option<Option<DateTime<Utc>>>,
    /// Comma-separated addresses and networks; null allows every address.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<String>, max_length = 10_000)]
    allowed_ips: Option<Option<String>>,
    /// Requests per minute; null uses the server's default.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000)]
    rate_limit_per_minute: Option<Option<i64>>,
}

/// A validated [`UpdateApiKey`]. `None` leaves the field unchanged.
#[derive(Debug)]
pub struct ApiKeyChanges {
    pub(in crate::features::api_keys) name: Option<String>,
    pub(in crate::features::api_keys) description: Option<Option<String>>,
    pub(in crate::features::api_keys) scopes: Option<Scopes>,
    pub(in crate::features::api_keys) is_active: Option<bool>,
    pub(in crate::features::api_keys) expires_at: Option<Option<DateTime<Utc>>>,
    pub(in crate::features::api_keys) allowed_ips: Option<Option<AddressList>>,
    pub(in crate::features::api_keys) rate_limit: Option<Option<NonZeroU32>>,
}

/// Request to rotate an API key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"grace_period_seconds": 3600}))]
pub struct RotateApiKey {
    /// Grace period of the old key, in seconds.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(minimum = 0, maximum = 604_800, default = 0, nullable = false)]
    grace_period_seconds: Option<i64>,
}

/// A validated [`RotateApiKey`].
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Grace period of the old key.
    pub(in crate::features::api_keys) grace: TimeDelta,
}

/// Filter for listing API keys.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ApiKeyFilter {
    /// Also list deactivated keys.
    #[param(default = false, required = false)]
    pub include_inactive: bool,
    /// Only keys that were neither used nor created within this number of days.
    #[param(minimum = 1, maximum = 3650)]
    pub unused_for_days: Option<i64>,
    /// Only keys whose name contains this text, ignoring case.
    #[param(max_length = 255)]
    pub q: Option<String>,
}

/// Period for listing keys that expire soon.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExpiryPeriod {
    /// Number of days from now.
    #[param(minimum = 1, maximum = 3650, default = 7, required = false)]
    pub days: i64,
}

/// Result of deactivating expired API keys.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"deactivated_count": 2, "message": "Deactivated 2 expired key(s)"}))]
pub struct CleanupReport {
    /// Number of keys deactivated.
    pub deactivated_count: usize,
    /// The result as a sentence.
    pub message: String,
}

const MAX_NAME: usize = 255;
const MAX_DESCRIPTION: usize = 1000;
const MAX_SCOPES: usize = 1000;
/// In characters: enough for 100 of the longest networks with blanks between them.
const MAX_ADDRESSES: usize = 10_000;
const MAX_RATE_LIMIT: i64 = 1_000_000_000;
/// One week.
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
        // A value that failed the range check may be too large for `TimeDelta`.
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
    const MERGE_PATCH: bool = true;

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

impl FromQuery for ApiKeyFilter {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self {
            include_inactive: query.flag("include_inactive").unwrap_or(false),
            unused_for_days: query.integer("unused_for_days", 1..=3650),
            q: query.text("q", MAX_NAME),
        }
    }
}

impl FromQuery for ExpiryPeriod {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { days: query.integer("days", 1..=3650).unwrap_or(7) }
    }
}
