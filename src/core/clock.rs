//! The clock of the server, and the format of times in responses.

use super::stored_time::StoredTime;
use chrono::{DateTime, Datelike, SecondsFormat, SubsecRound, TimeDelta, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Encode, Type};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// How far two changes of one row may be out of order, because the later one waited for the earlier
/// or because the clocks of two servers differ. Within this time, a stored time does not decrease.
/// A stored time that is further ahead is from a clock that was wrong, and is replaced.
pub const MAX_REORDERING: TimeDelta = TimeDelta::minutes(1);
/// A difference between the system clock and the monotonic clock that counts as a jump.
const MIN_JUMP: TimeDelta = TimeDelta::minutes(5);

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

    /// Moves this clock and its clones forward, or back if `by` is negative.
    pub fn advance(&self, by: TimeDelta) {
        let microseconds = by.num_microseconds().unwrap_or_default();
        self.offset_microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }
}

/// Detects jumps of the system clock: it compares the time that has passed with the monotonic clock,
/// which is never set.
#[derive(Debug)]
pub struct JumpDetector {
    time: DateTime<Utc>,
    instant: Instant,
}

impl JumpDetector {
    /// Starts to observe, at `time` of the system clock and `instant` of the monotonic one.
    #[must_use]
    pub fn new(time: DateTime<Utc>, instant: Instant) -> Self {
        Self { time, instant }
    }

    /// Returns by how much the system clock has jumped since the last call, forward or, if negative,
    /// back. `None` if it was less than 5 minutes. Reports each jump once.
    pub fn observe(&mut self, time: DateTime<Utc>, instant: Instant) -> Option<TimeDelta> {
        let elapsed: Duration = instant.saturating_duration_since(self.instant);
        let jump = time - self.time - TimeDelta::from_std(elapsed).unwrap_or_default();
        *self = Self { time, instant };
        (jump.abs() >= MIN_JUMP).then_some(jump)
    }
}

/// A time: RFC 3339 in UTC, always with microseconds and `Z`. A time that the database has out of
/// the range of RFC 3339 is read as the nearest one in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, utoipa::ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-31T09:30:00.000000Z")]
pub struct Timestamp(pub DateTime<Utc>);

impl From<StoredTime> for Timestamp {
    fn from(stored: StoredTime) -> Self {
        Self(stored.clamped())
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl<D: Database> Type<D> for Timestamp
where
    StoredTime: Type<D>,
{
    fn type_info() -> D::TypeInfo {
        StoredTime::type_info()
    }

    fn compatible(info: &D::TypeInfo) -> bool {
        StoredTime::compatible(info)
    }
}

impl<'r, D: Database> Decode<'r, D> for Timestamp
where
    StoredTime: Decode<'r, D>,
{
    fn decode(value: D::ValueRef<'r>) -> Result<Self, BoxDynError> {
        StoredTime::decode(value).map(Self::from)
    }
}

impl<'q, D: Database> Encode<'q, D> for Timestamp
where
    StoredTime: Encode<'q, D>,
{
    fn encode_by_ref(&self, buffer: &mut D::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        StoredTime(self.0).encode_by_ref(buffer)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.to_rfc3339() {
            Some(text) => serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default()),
            None => serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true)),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    /// Accepts every text, like [`StoredTime`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StoredTime::deserialize(deserializer).map(Self::from)
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
            seconds in -62_135_596_800..253_402_300_800_i64,
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

    #[test]
    fn a_jump_of_the_clock_is_reported_once() {
        let (start, instant) = (DateTime::UNIX_EPOCH, Instant::now());
        let mut detector = JumpDetector::new(start, instant);
        let jumps: Vec<Option<i64>> =
            [(10, 10), (20, 19), (320, 30), (1000, 40), (1010, 50), (500, 60), (510, 70)]
                .map(|(time, seconds)| {
                    let time = start + TimeDelta::seconds(time);
                    let jump = detector.observe(time, instant + Duration::from_secs(seconds));
                    jump.map(|jump| jump.num_seconds())
                })
                .into();
        assert_eq!(jumps, [None, None, None, Some(670), None, Some(-520), None]);
    }
}
