//! The lifetime of sessions (`SESSION_…`).

use super::reader::Reader;
use chrono::TimeDelta;

/// Maximum lifetime: ten years. A longer one is probably a mistake.
const MAX_HOURS: i64 = 10 * 365 * 24;

/// The lifetime of a session.
#[derive(Clone, Debug)]
pub struct SessionLimits {
    /// `SESSION_IDLE_HOURS`: the time from the last use to expiry.
    pub idle: TimeDelta,
    /// `SESSION_MAX_HOURS`: the time from sign-in to expiry, regardless of use.
    pub absolute: TimeDelta,
}

/// Reads `SESSION_…`.
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
