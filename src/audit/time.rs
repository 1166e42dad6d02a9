//! The time of a row, and whether it stands in the database as we write it.

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::sqlite::{SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Postgres, Sqlite, Type};

/// 2000-01-01, from which Postgres counts, in microseconds from 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A time that was read.
///
/// SQLite keeps it as text, which has many spellings that read as the same time and sort otherwise:
/// a row could be hidden from a search by time, and still hash to the same. Only ours is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// The time.
    pub at: DateTime<Utc>,
    /// Whether it was written to the microsecond, and as we write it.
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
        let ours = time.at.to_rfc3339_opts(SecondsFormat::AutoSi, false);
        Ok(Self { is_exact: time.is_exact && text == ours, ..time })
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Time {
    /// sqlx's own panics at `infinity`.
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?.checked_add(POSTGRES_EPOCH);
        let at = micros.and_then(DateTime::from_timestamp_micros);
        Ok(at.ok_or("a time out of range")?.into())
    }
}
