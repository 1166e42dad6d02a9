//! The time of an audit entry, and whether the database holds it in canonical form.

use crate::core::stored_time::StoredTime;
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Sqlite, Type};
use sqlx_postgres::{PgTypeInfo, PgValueRef, Postgres};

/// A time as read from the database.
///
/// SQLite stores it as text. Other spellings of the same time sort differently, so an altered entry
/// could be hidden from a query by time and still have the same hash. Only the spelling that
/// Octopus writes is exact. A time out of the range of responses is read as the nearest one, so
/// that the log can be listed, and is not exact, so that the verification reports the entry.
///
/// The times of entries need not increase: the chain is ordered by position, and a clock can be set
/// back.
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

impl From<StoredTime> for Time {
    fn from(stored: StoredTime) -> Self {
        let time = Self::from(stored.clamped());
        Self { is_exact: time.is_exact && stored.0 == time.at, ..time }
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
        let time = Self::from(StoredTime::from_text(&text));
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
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        <StoredTime as Decode<Postgres>>::decode(value).map(Self::from)
    }
}
