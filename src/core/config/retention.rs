//! The retention times of conversations, events and audit entries.

use super::reader::Reader;
use chrono::TimeDelta;

/// Maximum retention time: a century.
const MAX_DAYS: i64 = 36_500;
/// Default retention time of events.
const EVENT_DAYS: i64 = 30;

/// Retention times. `None` keeps the data for ever.
#[derive(Clone, Copy, Debug)]
pub struct RetentionConfig {
    /// `RETENTION_DAYS`: conversations without new messages.
    pub conversations: Option<TimeDelta>,
    /// `EVENT_RETENTION_DAYS`: events of conversations, from which an event stream can resume.
    pub events: TimeDelta,
    /// `AUDIT_RETENTION_DAYS`: audit entries.
    pub audit: Option<TimeDelta>,
}

impl RetentionConfig {
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
            format_args!("must be from 1 to {MAX_DAYS} days; for the default, do not set it"),
        );
        return None;
    }
    Some(TimeDelta::days(days))
}
