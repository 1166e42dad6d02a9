//! How long people stay logged in.

use super::reader::Reader;
use chrono::TimeDelta;

/// A session longer than ten years is a mistake.
const MAX_HOURS: i64 = 10 * 365 * 24;

/// When a session ends.
#[derive(Clone, Debug)]
pub struct SessionLimits {
    /// `SESSION_IDLE_HOURS`: this long after its last use.
    pub idle: TimeDelta,
    /// `SESSION_MAX_HOURS`: this long after its beginning.
    pub absolute: TimeDelta,
}

/// `SESSION_…`.
pub(super) fn read(r: &mut Reader) -> SessionLimits {
    SessionLimits {
        idle: hours(r, "SESSION_IDLE_HOURS", 14 * 24),
        absolute: hours(r, "SESSION_MAX_HOURS", 90 * 24),
    }
}

fn hours(r: &mut Reader, name: &str, default: i64) -> TimeDelta {
    let hours = r.parsed(name, default, "a whole number of hours");
    if !(1..=MAX_HOURS).contains(&hours) {
        r.problem(name, format_args!("must be from 1 to {MAX_HOURS} hours"));
        return TimeDelta::hours(default);
    }
    TimeDelta::hours(hours)
}
