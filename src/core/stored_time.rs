//! Times as a database has them. A time out of range must not prevent the row from being read.

use super::datetime::{self, EARLIEST, LATEST};
use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Deserializer};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Sqlite, Type};
use sqlx_postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef, Postgres};
use std::borrow::Cow;

/// The epoch of Postgres, 2000-01-01, in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
/// The first year that Postgres stores, 4713 BC, in the numbering with a year 0.
const POSTGRES_FIRST_YEAR: i32 = -4712;
/// chrono's last year. Postgres stores later times, which this module represents as infinite.
const CHRONO_LAST_YEAR: i32 = 262_142;

/// A stored time, which may be out of the range of responses: any year, or infinite. A text of
/// SQLite that is not a time is read as minus infinity. Never fails to decode.
///
/// For the sort key of a list, so that a cursor has the exact place of a row. Elsewhere,
/// [`Timestamp`](super::clock::Timestamp) is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredTime(pub DateTime<Utc>);

impl StoredTime {
    /// The nearest time in the range of responses.
    #[must_use]
    pub fn clamped(self) -> DateTime<Utc> {
        self.0.clamp(EARLIEST, LATEST)
    }

    /// Reads a text of SQLite, or of JSON that Postgres produced. Tries RFC 3339 first, because its
    /// parser is faster.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        let other = || datetime::parse(text).or_else(|| text.parse().ok());
        Self(time.ok().or_else(other).unwrap_or_else(|| out_of_range(text)))
    }

    /// Reads microseconds since the epoch of Postgres.
    fn from_postgres(microseconds: i64) -> Self {
        let time = microseconds.checked_add(POSTGRES_EPOCH);
        let infinite =
            if microseconds < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
        Self(time.and_then(DateTime::from_timestamp_micros).unwrap_or(infinite))
    }

    /// The microseconds since the epoch of Postgres, which are `i64::MIN` and `i64::MAX` for
    /// infinite times.
    fn to_postgres(self) -> i64 {
        match self.0.year() {
            year if year < POSTGRES_FIRST_YEAR => i64::MIN,
            year if year >= CHRONO_LAST_YEAR => i64::MAX,
            _ => self.0.timestamp_micros() - POSTGRES_EPOCH,
        }
    }
}

/// Reads the spellings of Postgres and chrono for years outside 0 to 9999.
fn out_of_range(text: &str) -> DateTime<Utc> {
    let (text, is_bc) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let year: String = text.chars().take_while(char::is_ascii_digit).collect();
    let time = year.parse::<i64>().ok().and_then(|number| {
        // 1 BC is the year 0.
        let number = if is_bc { 1 - number } else { number };
        format!("{number:+05}{}", &text[year.len()..]).parse().ok()
    });
    let is_late = text == "infinity" || text.starts_with('+') || year.len() > 4;
    time.unwrap_or(if is_late && !is_bc {
        DateTime::<Utc>::MAX_UTC
    } else {
        DateTime::<Utc>::MIN_UTC
    })
}

impl<'de> Deserialize<'de> for StoredTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
        Text::deserialize(deserializer).map(|Text(text)| Self::from_text(&text))
    }
}

impl Type<Sqlite> for StoredTime {
    fn type_info() -> SqliteTypeInfo {
        <DateTime<Utc> as Type<Sqlite>>::type_info()
    }

    fn compatible(info: &SqliteTypeInfo) -> bool {
        <DateTime<Utc> as Type<Sqlite>>::compatible(info)
    }
}

impl<'r> Decode<'r, Sqlite> for StoredTime {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        <&str as Decode<Sqlite>>::decode(value).map(Self::from_text)
    }
}

impl Encode<'_, Sqlite> for StoredTime {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <DateTime<Utc> as Encode<Sqlite>>::encode_by_ref(&self.0, buffer)
    }
}

impl Type<Postgres> for StoredTime {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for StoredTime {
    /// Decodes it directly, as sqlx's decoder panics at `infinity`.
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        <i64 as Decode<Postgres>>::decode(value).map(Self::from_postgres)
    }
}

impl Encode<'_, Postgres> for StoredTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Postgres>>::encode(self.to_postgres(), buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_text_is_read_as_a_time() {
        for (text, expected) in [
            ("2026-01-31T09:30:00.5+00:00", "2026-01-31T09:30:00.5Z"),
            ("2026-01-31 09:30:00+00:00", "2026-01-31T09:30:00Z"),
            ("2026-01-31 09:30:00", "2026-01-31T09:30:00Z"),
            ("0000-01-01T00:00:00+00:00", "0001-01-01T00:00:00Z"),
            ("0001-12-31T00:00:00+00:00 BC", "0001-01-01T00:00:00Z"),
            ("4713-11-24T00:00:00+00:00 BC", "0001-01-01T00:00:00Z"),
            ("-0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00Z"),
            ("-infinity", "0001-01-01T00:00:00Z"),
            ("yesterday", "0001-01-01T00:00:00Z"),
            ("", "0001-01-01T00:00:00Z"),
            ("10000-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999Z"),
            ("+10000-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999Z"),
            ("294276-12-31T23:59:59.999999+00:00", "9999-12-31T23:59:59.999999Z"),
            ("infinity", "9999-12-31T23:59:59.999999Z"),
        ] {
            let found: StoredTime = serde_json::from_value(text.into()).unwrap();
            let expected = DateTime::parse_from_rfc3339(expected).unwrap().to_utc();
            assert_eq!(found.clamped(), expected, "{text}");
        }
    }

    #[test]
    fn texts_of_times_out_of_range_keep_their_order() {
        let texts = [
            "-infinity",
            "4713-11-24T00:00:00+00:00 BC",
            "0002-06-01T00:00:00+00:00 BC",
            "0001-06-01T00:00:00+00:00 BC",
            "0001-06-01T00:00:00+00:00",
            "9999-06-01T00:00:00+00:00",
            "10000-06-01T00:00:00+00:00",
            "200000-06-01T00:00:00+00:00",
            "infinity",
        ];
        assert!(texts.map(StoredTime::from_text).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_time_of_postgres_stays_the_same() {
        for microseconds in
            [i64::MIN, -210_000_000_000_000_000, -1, 0, 1, 300_000_000_000_000_000, i64::MAX]
        {
            assert_eq!(StoredTime::from_postgres(microseconds).to_postgres(), microseconds);
        }
    }
}
