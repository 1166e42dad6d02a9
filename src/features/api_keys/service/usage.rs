//! Usage reports of API keys, and retention of usage data.

use super::super::model::{Granularity, UsageBucket, UsageCounts, UsageFilter, UsageReport};
use super::super::repository;
use super::stored_key::NOT_FOUND;
use crate::core::clock::Timestamp;
use crate::core::error::Result;
use crate::http::{Fields, forget_old_idempotency_keys};
use crate::state::AppState;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};

/// Retention of usage data.
const RETENTION: TimeDelta = TimeDelta::days(90);
/// Lower bound of `since`: earlier dates may have no RFC 3339 form.
const EARLIEST: DateTime<Utc> = DateTime::UNIX_EPOCH;
/// Length of the period if `since` is absent.
const DEFAULT_SPAN: TimeDelta = TimeDelta::days(30);

/// Reports the usage of key `id` in the period of `filter`, by hour or day.
pub async fn usage(app: &AppState, id: i64, filter: &UsageFilter) -> Result<UsageReport> {
    repository::find(&app.db, id).await?.ok_or(NOT_FOUND)?;
    if let Err(error) = app.usage.flush(&app.db).await {
        tracing::warn!(
            event = "usage.flush_failed",
            %error,
            "failed to write key usage: the report omits the most recent uses"
        );
    }
    let until = filter.until.unwrap_or_else(|| app.clock.now());
    let since = filter.since.unwrap_or(until - DEFAULT_SPAN);
    let since = start_of(since.max(EARLIEST), filter.granularity);
    if since >= until {
        let msg = "Value error, must be before until (default: now)";
        let input = since.to_rfc3339();
        return Err(Fields::refusal("query", "since", "value_error", msg, input));
    }
    let mut total = UsageCounts::default();
    let mut buckets: Vec<UsageBucket> = vec![];
    for hour in repository::usage(&app.db, id, since, until).await? {
        total += hour.counts;
        let start = Timestamp(start_of(hour.hour.0, filter.granularity));
        match buckets.last_mut().filter(|bucket| bucket.start == start) {
            Some(bucket) => bucket.counts += hour.counts,
            None => buckets.push(UsageBucket { start, counts: hour.counts }),
        }
    }
    let (since, until) = (Timestamp(since), Timestamp(until));
    let granularity = filter.granularity;
    Ok(UsageReport { api_key_id: id, since, until, granularity, total, buckets })
}

/// The start of the hour or day that contains `time`.
fn start_of(time: DateTime<Utc>, granularity: Granularity) -> DateTime<Utc> {
    let length = match granularity {
        Granularity::Hour => TimeDelta::hours(1),
        Granularity::Day => TimeDelta::days(1),
    };
    // Fails only for times outside the range of 64-bit nanoseconds: before 1677 or after 2262.
    time.duration_trunc(length).unwrap_or(time)
}

/// Deletes usage data older than 90 days and idempotency records older than one day.
pub async fn forget_old(app: &AppState) -> Result<()> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    repository::forget_usage(&mut tx, now - RETENTION).await?;
    forget_old_idempotency_keys(&mut tx, now).await?;
    Ok(tx.commit().await?)
}
