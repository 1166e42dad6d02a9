//! How often a key was used, on the wire.

use crate::core::clock::Timestamp;
use crate::http::{FromQuery, QueryPairs};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

/// How long a bucket of the report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// From the full hour on.
    Hour,
    /// From midnight UTC on.
    Day,
}

/// Requests with a key, by how they went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
pub struct UsageCounts {
    /// Let through.
    pub ok: i64,
    /// The key lacked a scope.
    pub denied_scope: i64,
    /// From an address that is not on the key's list.
    pub denied_address: i64,
    /// The key's limit was used up.
    pub rate_limited: i64,
    /// The key's time was over.
    pub expired: i64,
}

/// An hour or a day with requests.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UsageBucket {
    /// Its beginning.
    pub start: Timestamp,
    /// What came in it.
    #[serde(flatten)]
    pub counts: UsageCounts,
}

/// How often a key was used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UsageReport {
    /// The key.
    pub api_key_id: i64,
    /// The beginning of the first bucket looked at.
    pub since: Timestamp,
    /// The end, which is not part of it.
    pub until: Timestamp,
    /// How long a bucket is.
    pub granularity: Granularity,
    /// All buckets together.
    pub total: UsageCounts,
    /// Those with requests, the earliest first.
    pub buckets: Vec<UsageBucket>,
}

/// Which part of a key's use to report.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UsageFilter {
    /// From the hour or day of this time on; 30 days before the end, when absent.
    pub since: Option<DateTime<Utc>>,
    /// Before this time; now, when absent.
    pub until: Option<DateTime<Utc>>,
    /// How long a bucket is.
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
