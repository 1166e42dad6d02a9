//! The clock of the server, and the format of times in responses.

use chrono::{DateTime, Datelike, SecondsFormat, SubsecRound, TimeDelta, Timelike, Utc};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The only source of the current time, in whole microseconds. Postgres stores microseconds, so a
/// more precise time would not equal the value read back.
///
/// Clones share one offset, so that a test can move the clock of a running server.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset_microseconds: Arc<AtomicI64>,
}

impl Clock {
    /// Returns the current time in UTC.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    pub fn now(&self) -> DateTime<Utc> {
        let offset = TimeDelta::microseconds(self.offset_microseconds.load(Ordering::Relaxed));
        Utc::now().trunc_subsecs(6) + offset
    }

    /// Moves this clock and its clones forward.
    pub fn advance(&self, by: TimeDelta) {
        let microseconds = by.num_microseconds().unwrap_or_default();
        self.offset_microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }
}

/// A time: RFC 3339 in UTC, always with microseconds and `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type, utoipa::ToSchema)]
#[sqlx(transparent)]
#[schema(value_type = String, format = DateTime, example = "2026-01-31T09:30:00.000000Z")]
pub struct Timestamp(pub DateTime<Utc>);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.to_rfc3339() {
            Some(text) => serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default()),
            None => serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true)),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    /// Accepts every format that chrono accepts. Tries RFC 3339 first, because its parser is
    /// faster.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
        let Text(text) = Text::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map(|time| time.to_utc());
        time.or_else(|_| text.parse()).map(Self).map_err(Error::custom)
    }
}

impl Timestamp {
    /// Formats the time as chrono does, in a tenth of the time: a page of messages has hundreds of
    /// times. Returns `None` for years outside 0 to 9999.
    fn to_rfc3339(self) -> Option<[u8; 27]> {
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let year = u32::try_from(self.0.year()).ok().filter(|year| *year < 10_000)?;
        // chrono counts the microseconds of a leap second from 1,000,000; it is written as second
        // 60.
        let microsecond = self.0.timestamp_subsec_micros();
        let leap = microsecond / 1_000_000;
        let fields = [
            (0..4, year),
            (5..7, self.0.month()),
            (8..10, self.0.day()),
            (11..13, self.0.hour()),
            (14..16, self.0.minute()),
            (17..19, self.0.second() + leap),
            (20..26, microsecond % 1_000_000),
        ];
        for (place, mut number) in fields {
            for digit in text[place].iter_mut().rev() {
                *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
                number /= 10;
            }
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_timestamp_is_formatted_as_by_chrono(
            seconds in -70_000_000_000..300_000_000_000_i64,
            nanoseconds in 0..2_000_000_000_u32,
        ) {
            // Allow a leap second only at the end of a minute.
            let nanoseconds =
                if seconds % 60 == 59 { nanoseconds } else { nanoseconds % 1_000_000_000 };
            let time = DateTime::from_timestamp(seconds, nanoseconds).unwrap();
            let expected = time.to_rfc3339_opts(SecondsFormat::Micros, true);
            let written = serde_json::to_value(Timestamp(time)).unwrap();
            prop_assert_eq!(&written, &expected);
            let stored = time.to_rfc3339_opts(SecondsFormat::AutoSi, false);
            for (text, exactly) in [(written, time.trunc_subsecs(6)), (stored.into(), time)] {
                let read: DateTime<Utc> = serde_json::from_value(text.clone()).unwrap();
                prop_assert_eq!(read, exactly);
                prop_assert_eq!(serde_json::from_value::<Timestamp>(text).unwrap().0, read);
            }
        }
    }
}
