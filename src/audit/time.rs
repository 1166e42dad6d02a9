//! The time of an audit entry, and whether the database holds it in canonical form.

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Sqlite, Type};
use sqlx_postgres::{PgTypeInfo, PgValueRef, Postgres};

/// The epoch of Postgres, 2000-01-01, in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A time as read from the database.
///
/// SQLite stores it as text. Other spellings of the same time sort differently, so an altered entry
/// could be hidden from a query by time and still have the same hash. Only the spelling that
/// Octopus writes is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// The time.
    pub at: DateTime<Utc>,
    /// Whether it has microsecond precision and the spelling that Octopus writes.
    pub(super) is_exact: bool,
}

impl From<DateTime<Utc>> for Time {
    fn from(at: DateTime<Utc>) -> Self {
        Self { at, is_exact: at.trunc_subsecs(6) == at }
    }
}

impl Type<Sqlite> for Time {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl<'r> Decode<'r, Sqlite> for Time {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        let text = <String as Decode<Sqlite>>::decode(value)?;
        let time = Self::from(DateTime::parse_from_rfc3339(&text)?.to_utc());
        let canonical = time.at.to_rfc3339_opts(SecondsFormat::AutoSi, false);
        Ok(Self { is_exact: time.is_exact && text == canonical, ..time })
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Time {
    /// Decodes it directly, as sqlx's decoder panics at `infinity`.
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?.checked_add(POSTGRES_EPOCH);
        let at = micros.and_then(DateTime::from_timestamp_micros);
        Ok(at.ok_or("the time is out of range")?.into())
    }
}
