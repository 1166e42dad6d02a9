//! Usage report models.

use crate::core::clock::Timestamp;
use crate::http::{FromQuery, QueryPairs};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

/// Length of a bucket in a usage report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// One hour, from the full hour.
    Hour,
    /// One day, from midnight UTC.
    Day,
}

/// Number of requests with an API key, by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
pub struct UsageCounts {
    /// Allowed.
    pub ok: i64,
    /// Refused: the key lacked a scope.
    pub denied_scope: i64,
    /// Refused: the client address is not in `allowed_ips`.
    pub denied_address: i64,
    /// Refused: the key was over its rate limit.
    pub rate_limited: i64,
    /// Refused: the key had expired.
    pub expired: i64,
}

/// Request counts of one hour or day.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UsageBucket {
    /// Start of the bucket.
    pub start: Timestamp,
    /// Requests in the bucket.
    #[serde(flatten)]
    pub counts: UsageCounts,
}

/// Usage of an API key over a period.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UsageReport {
    /// Id of the key.
    pub api_key_id: i64,
    /// Start of the period: the start of its first bucket.
    pub since: Timestamp,
    /// End of the period, exclusive.
    pub until: Timestamp,
    /// Length of a bucket.
    pub granularity: Granularity,
    /// Sum of all buckets.
    pub total: UsageCounts,
    /// Buckets with at least one request, the earliest first.
    pub buckets: Vec<UsageBucket>,
}

/// Period and granularity of a usage report.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UsageFilter {
    /// Start of the period, rounded down to the hour or day. Default: 30 days before `until`.
    pub since: Option<DateTime<Utc>>,
    /// End of the period, exclusive. Default: now.
    pub until: Option<DateTime<Utc>>,
    /// Length of a bucket.
    #[param(value_type = Option<Granularity>, default = "day")]
    pub granularity: Granularity,
}

impl FromQuery for UsageFilter {
    fn from_query(query: &mut QueryPairs) -> Self {
        let (since, until) = (query.time("since"), query.time("until"));
        let granularity = query.one_of("granularity", "'hour' or 'day'", |text| match text {
            "hour" => Some(Granularity::Hour),
            "day" => Some(Granularity::Day),
            _ => None,
        });
        Self { since, until, granularity: granularity.unwrap_or(Granularity::Day) }
    }
}

impl std::ops::AddAssign for UsageCounts {
    fn add_assign(&mut self, other: Self) {
        self.ok += other.ok;
        self.denied_scope += other.denied_scope;
        self.denied_address += other.denied_address;
        self.rate_limited += other.rate_limited;
        self.expired += other.expired;
    }
}
