//! How long things are kept.

use super::reader::Reader;
use chrono::TimeDelta;

/// Longer than a century is for ever.
const MAX_DAYS: i64 = 36_500;
/// How long events are kept unless configured.
const EVENT_DAYS: i64 = 30;

/// How long things are kept; `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// `RETENTION_DAYS`: conversations in which nothing is said.
    pub conversations: Option<TimeDelta>,
    /// `EVENT_RETENTION_DAYS`: what a stream can go on from.
    pub events: TimeDelta,
    /// `AUDIT_RETENTION_DAYS`: rows of the audit trail.
    pub audit: Option<TimeDelta>,
}

impl Retention {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self {
            conversations: days(r, "RETENTION_DAYS"),
            events: days(r, "EVENT_RETENTION_DAYS").unwrap_or(TimeDelta::days(EVENT_DAYS)),
            audit: days(r, "AUDIT_RETENTION_DAYS"),
        }
    }
}

fn days(r: &mut Reader, name: &str) -> Option<TimeDelta> {
    r.text(name)?;
    let days = r.parsed(name, MAX_DAYS, "a whole number of days");
    if !(1..=MAX_DAYS).contains(&days) {
        r.problem(
            name,
            format_args!("must be from 1 to {MAX_DAYS} days; leave it out for its default"),
        );
        return None;
    }
    Some(TimeDelta::days(days))
}
