//! Decodes values of the source: texts, times, ids and flags.

use crate::core::datetime::{EARLIEST, LATEST, history};
use chrono::{DateTime, NaiveDateTime, SubsecRound, Utc};

/// Replaces characters that must not be stored or shown.
const UNREADABLE: char = char::REPLACEMENT_CHARACTER;

/// Decodes a text. The flag is true if invalid UTF-8 or U+0000 was replaced.
pub fn text(bytes: Vec<u8>) -> (String, bool) {
    let (text, is_changed) = match String::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
    };
    if text.contains('\0') { (text.replace('\0', "\u{fffd}"), true) } else { (text, is_changed) }
}

/// Decodes an optional short text. Replaces control characters, which a terminal would interpret.
pub fn label(bytes: Option<Vec<u8>>) -> Option<String> {
    bytes.map(|bytes| text(bytes).0.replace(char::is_control, &UNREADABLE.to_string()))
}

/// Parses a time as SQLAlchemy writes it, `2025-01-02 03:04:05.678901`, in UTC. A `T` and an offset
/// are accepted as well.
pub fn time(bytes: &[u8]) -> Option<DateTime<Utc>> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f"))
        .map(|time| time.and_utc())
        .or_else(|_| text.parse::<DateTime<Utc>>())
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").map(DateTime::into));
    let time = time.ok()?.trunc_subsecs(6);
    // Databases disagree on how to represent a leap second.
    let is_leap_second = time.timestamp_subsec_nanos() >= 1_000_000_000;
    ((EARLIEST..=LATEST).contains(&time) && !is_leap_second).then_some(time)
}

/// Parses the time of something that has happened by `now`. Returns `None` if it is out of the
/// range of [`history`].
pub fn past(bytes: &[u8], now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    time(bytes).filter(|time| history(now).contains(time))
}

/// Parses an id in canonical decimal form only: SQLite accepts any text in an id column and would
/// cast `1abc` to 1.
pub fn id(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.parse().ok().filter(|id: &i64| id.to_string() == text)
}

/// Parses a flag.
pub fn flag(bytes: &[u8]) -> Option<bool> {
    match bytes.to_ascii_lowercase().as_slice() {
        b"1" | b"true" | b"t" => Some(true),
        b"0" | b"false" | b"f" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc_however_they_are_written() {
        for (text, expected) in [
            ("2025-01-02 03:04:05.678901", "2025-01-02T03:04:05.678901+00:00"),
            ("2025-01-02 03:04:05", "2025-01-02T03:04:05+00:00"),
            ("2025-01-02T03:04:05.678901", "2025-01-02T03:04:05.678901+00:00"),
            ("2025-01-02 03:04:05.678901+00:00", "2025-01-02T03:04:05.678901+00:00"),
            ("2025-01-02T05:04:05.5+02:00", "2025-01-02T03:04:05.500+00:00"),
            ("2025-01-02T03:04:05Z", "2025-01-02T03:04:05+00:00"),
            ("2025-01-02 05:04:05+0200", "2025-01-02T03:04:05+00:00"),
            ("2025-01-02 03:04:05.6789019", "2025-01-02T03:04:05.678901+00:00"),
        ] {
            let found = time(text.as_bytes()).map(|time| time.to_rfc3339());
            assert_eq!(found.as_deref(), Some(expected), "{text}");
        }
        for text in ["", "yesterday", "2025-01-02", "2025-13-02 03:04:05", "1735786800", "-1-01-01"]
        {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_time_before_1970_or_in_the_future_is_not_in_the_past() {
        let now = time(b"2026-01-31 09:30:00").unwrap();
        for (text, is_past) in [
            ("1969-12-31 23:59:59.999999", false),
            ("1970-01-01 00:00:00", true),
            ("2026-01-31 09:35:00", true),
            ("2026-01-31 09:35:00.000001", false),
            ("2099-12-31 00:00:00", false),
            ("0000-01-01 00:00:00", false),
            ("9999-12-31 23:59:60", false),
            ("yesterday", false),
        ] {
            assert_eq!(past(text.as_bytes(), now).is_some(), is_past, "{text}");
        }
    }

    #[test]
    fn a_text_that_only_begins_with_an_id_is_no_id() {
        assert_eq!((id(b"12"), id(b"-3")), (Some(12), Some(-3)));
        for other in ["", "abc", "1abc", "1.5", "1.0", "+1", "01", " 1", "9223372036854775808"] {
            assert_eq!(id(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn invalid_bytes_of_texts_are_replaced() {
        assert_eq!(text("für".into()), ("für".to_owned(), false));
        assert_eq!(text(vec![b'f', 0xff, 0, b'r']), ("f\u{fffd}\u{fffd}r".to_owned(), true));
    }
}
