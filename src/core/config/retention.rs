//! How long conversations are kept.

use super::reader::Reader;
use chrono::TimeDelta;

/// Longer than a century is for ever.
const MAX_DAYS: i64 = 36_500;

/// `RETENTION_DAYS`; `None` is for ever.
pub(super) fn read(r: &mut Reader) -> Option<TimeDelta> {
    const NAME: &str = "RETENTION_DAYS";
    r.text(NAME)?;
    let days = r.parsed(NAME, MAX_DAYS, "a whole number of days");
    if !(1..=MAX_DAYS).contains(&days) {
        r.problem(
            NAME,
            format_args!("must be from 1 to {MAX_DAYS} days; without it, all are kept"),
        );
        return None;
    }
    Some(TimeDelta::days(days))
}
