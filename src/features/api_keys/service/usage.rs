//! How often keys are used.

use super::super::model::{Granularity, UsageBucket, UsageCounts, UsageFilter, UsageReport};
use super::super::repository;
use super::NOT_FOUND;
use crate::core::clock::Timestamp;
use crate::core::error::Result;
use crate::http::{Fields, forget_old_idempotency_keys};
use crate::state::AppState;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};

/// How long it is remembered.
const KEPT: TimeDelta = TimeDelta::days(90);
/// Years before have no RFC 3339 form.
const EARLIEST: DateTime<Utc> = DateTime::UNIX_EPOCH;
/// How much is reported when nobody says from when.
const DEFAULT_SPAN: TimeDelta = TimeDelta::days(30);

/// How often key `id` was used in the time that `filter` names, by hours or days.
pub async fn usage(app: &AppState, id: i64, filter: &UsageFilter) -> Result<UsageReport> {
    repository::find(&app.db, id).await?.ok_or(NOT_FOUND)?;
    if let Err(error) = app.usage.flush(&app.db).await {
        tracing::warn!(event = "usage.flush_failed", %error, "the last uses are not reported yet");
    }
    let until = filter.until.unwrap_or_else(|| app.clock.now());
    let since = filter.since.unwrap_or(until - DEFAULT_SPAN);
    let since = beginning(since.max(EARLIEST), filter.granularity);
    if since >= until {
        let msg = "Value error, it must be before until, which is now when it is absent";
        let input = since.to_rfc3339();
        return Err(Fields::refusal("query", "since", "value_error", msg, input));
    }
    let mut total = UsageCounts::default();
    let mut buckets: Vec<UsageBucket> = vec![];
    for hour in repository::usage(&app.db, id, since, until).await? {
        total += hour.counts;
        let start = Timestamp(beginning(hour.hour.0, filter.granularity));
        match buckets.last_mut().filter(|bucket| bucket.start == start) {
            Some(bucket) => bucket.counts += hour.counts,
            None => buckets.push(UsageBucket { start, counts: hour.counts }),
        }
    }
    let (since, until) = (Timestamp(since), Timestamp(until));
    let granularity = filter.granularity;
    Ok(UsageReport { api_key_id: id, since, until, granularity, total, buckets })
}

/// The beginning of the hour or day of `time`.
fn beginning(time: DateTime<Utc>, granularity: Granularity) -> DateTime<Utc> {
    let length = match granularity {
        Granularity::Hour => TimeDelta::hours(1),
        Granularity::Day => TimeDelta::days(1),
    };
    // Fails only for times that 64 bits of nanoseconds cannot hold: before 1677, after 2262.
    time.duration_trunc(length).unwrap_or(time)
}

/// Forgets what is older than it is kept: uses after 90 days, `Idempotency-Key`s after one.
pub async fn forget_old(app: &AppState) -> Result<()> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    repository::forget_usage(&mut tx, now - KEPT).await?;
    forget_old_idempotency_keys(&mut tx, now).await?;
    Ok(tx.commit().await?)
}
