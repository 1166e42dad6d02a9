//! Deserializers for fields of request bodies, for `#[serde(deserialize_with = "…")]`.

use chrono::{DateTime, Datelike, NaiveDateTime, SubsecRound, Timelike, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The error for a text that is not a time.
pub(super) const INVALID_TIME: &str = "Input should be a valid datetime";

/// Deserializes a field that may be absent but not null.
pub fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// Deserializes a field for which absent and null differ: `None` is absent, `Some(None)` is null.
pub fn double_option<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// Deserializes a time: RFC 3339, or the same without an offset, which means UTC. Truncated to
/// microseconds.
pub fn time<'de, D: Deserializer<'de>>(d: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
    parse_time(&text).map(Some).ok_or_else(|| D::Error::custom(INVALID_TIME))
}

/// [`time`], for a field for which absent and null differ.
pub fn double_option_time<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Option<DateTime<Utc>>>, D::Error> {
    time(d).map(Some)
}

/// Parses a time as [`time`] describes. Years after 9999 have no RFC 3339 form.
pub(super) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let with_offset = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let without = || {
        let naive = text.parse::<NaiveDateTime>();
        naive.or_else(|_| NaiveDateTime::parse_from_str(text, "%F %T%.f")).map(|t| t.and_utc())
    };
    let time = with_offset.or_else(|_| without()).ok()?.trunc_subsecs(6);
    // Databases and clients disagree on how to represent a leap second.
    let is_leap_second = time.nanosecond() >= 1_000_000_000;
    ((0..=9999).contains(&time.year()) && !is_leap_second).then_some(time)
}
