//! Times from outside: the spellings that are accepted, and the ranges.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use std::ops::RangeInclusive;

/// The earliest time that requests and responses can have: the start of the year 1. Many clients
/// cannot represent the year 0.
pub const EARLIEST: DateTime<Utc> = from_seconds(-62_135_596_800, 0);
/// The latest time that requests and responses can have: the last microsecond of the year 9999.
pub const LATEST: DateTime<Utc> = from_seconds(253_402_300_799, 999_999_000);
/// How far the time of an event in the past may be ahead of the clock: the clocks of two machines
/// differ.
pub const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);
/// A number with a larger absolute value is in milliseconds instead of seconds, as in pydantic v2.
const MAX_SECONDS: u64 = 20_000_000_000;
/// [`MAX_SECONDS`] for numbers with a fraction.
const MAX_SECONDS_FLOAT: f64 = 2e10;

const fn from_seconds(seconds: i64, nanoseconds: u32) -> DateTime<Utc> {
    match DateTime::from_timestamp(seconds, nanoseconds) {
        Some(time) => time,
        None => DateTime::UNIX_EPOCH,
    }
}

/// The range for times of what has happened, such as messages in an import: from 1970 to
/// [`MAX_AHEAD`] after `now`.
#[must_use]
pub fn history(now: DateTime<Utc>) -> RangeInclusive<DateTime<Utc>> {
    DateTime::UNIX_EPOCH..=now + MAX_AHEAD
}

/// Parses a time in a spelling of pydantic v2: a date, or a date and a time of day, with an offset
/// or in UTC; or the number of seconds or milliseconds since 1970. Truncates to microseconds.
/// Returns `None` if it is not a time from [`EARLIEST`] to [`LATEST`].
#[must_use]
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_decimal = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match digits.split_once('.') {
        None if is_decimal(digits) => from_integer(text.parse().ok()?),
        Some((whole, fraction)) if is_decimal(whole) && is_decimal(fraction) => {
            from_float(text.parse().ok()?)
        }
        _ => Reader(text.as_bytes()).datetime().and_then(in_range),
    }
}

/// The time `number` seconds after 1970, or milliseconds if it is large. Returns `None` if it is
/// not a time from [`EARLIEST`] to [`LATEST`].
#[must_use]
pub fn from_integer(number: i64) -> Option<DateTime<Utc>> {
    let time = if number.unsigned_abs() > MAX_SECONDS {
        DateTime::from_timestamp_millis(number)
    } else {
        DateTime::from_timestamp(number, 0)
    };
    time.and_then(in_range)
}

/// Like [`from_integer`]; the fraction is rounded to microseconds.
#[must_use]
pub fn from_float(number: f64) -> Option<DateTime<Utc>> {
    let is_seconds = number.abs() <= MAX_SECONDS_FLOAT;
    let microseconds = (number * if is_seconds { 1e6 } else { 1e3 }).round();
    // Larger numbers are beyond the year 9999; NaN is not in the range.
    if !(-1e18..=1e18).contains(&microseconds) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let microseconds = microseconds as i64;
    DateTime::from_timestamp_micros(microseconds).and_then(in_range)
}

fn in_range(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (EARLIEST..=LATEST).contains(&time).then_some(time)
}

/// The rest of a text.
struct Reader<'t>(&'t [u8]);

impl Reader<'_> {
    /// A date, and a time of day if there is one. The whole text must be read.
    fn datetime(mut self) -> Option<DateTime<Utc>> {
        let date = self.date()?;
        if self.0.is_empty() {
            return Some(date.and_time(NaiveTime::MIN).and_utc());
        }
        self.one_of(b"Tt _")?;
        let local = NaiveDateTime::new(date, self.time()?);
        let offset = self.offset()?;
        let utc = local.checked_sub_signed(offset)?.and_utc();
        self.0.is_empty().then_some(utc)
    }

    /// `YYYY-MM-DD`.
    fn date(&mut self) -> Option<NaiveDate> {
        let year = i32::try_from(self.number(4)?).ok()?;
        self.one_of(b"-")?;
        let month = self.number(2)?;
        self.one_of(b"-")?;
        NaiveDate::from_ymd_opt(year, month, self.number(2)?)
    }

    /// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff`. There is no second 60: databases and clients
    /// disagree on how to represent a leap second.
    fn time(&mut self) -> Option<NaiveTime> {
        let hour = self.number(2)?;
        self.one_of(b":")?;
        let minute = self.number(2)?;
        if self.one_of(b":").is_none() {
            return NaiveTime::from_hms_opt(hour, minute, 0);
        }
        let second = self.number(2)?;
        let microsecond = if self.one_of(b".,").is_some() { self.fraction()? } else { 0 };
        NaiveTime::from_hms_micro_opt(hour, minute, second, microsecond)
            .filter(|_| microsecond < 1_000_000)
    }

    /// The digits of a fraction of a second, truncated to microseconds.
    fn fraction(&mut self) -> Option<u32> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let microseconds = self.number(length.min(6))?;
        self.0 = &self.0[length.saturating_sub(6)..];
        let missing = 6_usize.saturating_sub(length);
        (length > 0).then(|| (0..missing).fold(microseconds, |number, _| number * 10))
    }

    /// `Z`, `+HH:MM`, `+HHMM` or `+HH`; zero at the end of the text. The sign may be U+2212.
    fn offset(&mut self) -> Option<TimeDelta> {
        if self.0.is_empty() || self.one_of(b"Zz").is_some() {
            return Some(TimeDelta::zero());
        }
        let is_negative = if let Some(rest) = self.0.strip_prefix("\u{2212}".as_bytes()) {
            self.0 = rest;
            true
        } else {
            self.one_of(b"+-")? == b'-'
        };
        let hours = self.number(2)?;
        let has_colon = self.one_of(b":").is_some();
        let minutes = if self.0.is_empty() && !has_colon { 0 } else { self.number(2)? };
        if hours > 23 || minutes > 59 {
            return None;
        }
        let offset = TimeDelta::minutes(i64::from(60 * hours + minutes));
        Some(if is_negative { -offset } else { offset })
    }

    /// Reads one byte, if it is one of `bytes`.
    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !bytes.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }

    /// Reads a number of exactly `digits` digits.
    fn number(&mut self, digits: usize) -> Option<u32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        let number = number.iter().try_fold(0, |number, byte| {
            byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
        })?;
        self.0 = rest;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::SubsecRound;
    use proptest::prelude::*;

    #[test]
    fn the_spellings_of_pydantic_are_accepted() {
        for (text, expected) in [
            ("2099-12-31T23:59:59Z", "2099-12-31T23:59:59Z"),
            ("2099-12-31T23:59", "2099-12-31T23:59:00Z"),
            ("2099-12-31t23:59z", "2099-12-31T23:59:00Z"),
            ("2099-12-31 23:59:59.5", "2099-12-31T23:59:59.5Z"),
            ("2099-12-31_23:59:59,25", "2099-12-31T23:59:59.25Z"),
            ("2099-12-31T23:59:59.1234567890", "2099-12-31T23:59:59.123456Z"),
            ("2099-12-31T23:59:59+0900", "2099-12-31T14:59:59Z"),
            ("2099-12-31T23:59:59+09", "2099-12-31T14:59:59Z"),
            ("2099-12-31T23:59-09:30", "2100-01-01T09:29:00Z"),
            ("2099-12-31T23:59\u{2212}09:30", "2100-01-01T09:29:00Z"),
            ("2099-12-31", "2099-12-31T00:00:00Z"),
            ("0001-01-01", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            ("4102444799", "2099-12-31T23:59:59Z"),
            ("+4102444799", "2099-12-31T23:59:59Z"),
            ("4102444799.25", "2099-12-31T23:59:59.25Z"),
            ("4102444799500", "2099-12-31T23:59:59.5Z"),
            ("4102444799500.5", "2099-12-31T23:59:59.500500Z"),
            ("20000000000", "2603-10-11T11:33:20Z"),
            ("20000000001", "1970-08-20T11:33:20.001Z"),
            ("-1", "1969-12-31T23:59:59Z"),
        ] {
            let expected = DateTime::parse_from_rfc3339(expected).unwrap().to_utc();
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_and_times_out_of_range_are_refused() {
        for text in [
            "",
            "tomorrow",
            "nan",
            "NaN",
            "inf",
            "infinity",
            "-Infinity",
            "1e9",
            "0x10",
            ".5",
            "1.",
            "+",
            " 4102444799",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "-0001-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-00:01",
            "99999999999999999999",
            "253402300800000",
            "-62135596800001",
            "2099-02-29",
            "2099-13-01",
            "2099-1-1",
            "2099-12-31T",
            "2099-12-31T23",
            "2099-12-31T23:",
            "2099-12-31T23:59:",
            "2099-12-31T23:59:59.",
            "2099-12-31T23:59:60Z",
            "2099-12-31T24:00:00Z",
            "2099-12-31T23:60Z",
            "2099-12-31T23:59.5Z",
            "2099-12-31T23:59:59+24:00",
            "2099-12-31T23:59:59-24:00",
            "2099-12-31T23:59:59+09:60",
            "2099-12-31T23:59:59+09:",
            "2099-12-31T23:59:59+9",
            "2099-12-31T23:59:59 Z",
            "2099-12-31T23:59:59ZZ",
            "2099-12-31Z",
            "2099/12/31",
            "٢٠٩٩-12-31",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 1e15, -1e15] {
            assert_eq!(from_float(number), None, "{number}");
        }
        assert_eq!((from_integer(i64::MIN), from_integer(i64::MAX)), (None, None));
    }

    proptest! {
        #[test]
        fn a_text_of_rfc_3339_is_parsed_as_by_chrono(
            microseconds in EARLIEST.timestamp_micros()..=LATEST.timestamp_micros(),
        ) {
            let time = DateTime::from_timestamp_micros(microseconds).unwrap();
            prop_assert_eq!(parse(&time.to_rfc3339()), Some(time));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[-0-9TtZz:.,+ _]{0,30}|.{0,12}") {
            if let Some(time) = parse(&text) {
                prop_assert_eq!(time.trunc_subsecs(6), time);
            }
        }
    }
}
