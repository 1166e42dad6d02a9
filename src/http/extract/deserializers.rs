//! Deserializers for fields of request bodies, for `#[serde(deserialize_with = "…")]`.

use crate::core::datetime;
use chrono::{DateTime, Utc};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt::Formatter;

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

/// Deserializes a time: a text or a number, as [`datetime::parse`] describes. Truncated to
/// microseconds.
pub fn time<'de, D: Deserializer<'de>>(d: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    d.deserialize_any(TimeVisitor)
}

/// [`time`], for a field for which absent and null differ.
pub fn double_option_time<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Option<DateTime<Utc>>>, D::Error> {
    time(d).map(Some)
}

/// Reads a time or null.
struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Option<DateTime<Utc>>;

    /// The most common of the accepted types, for the error of any other type.
    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        valid(datetime::parse(text))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        valid(datetime::from_integer(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        valid(i64::try_from(number).ok().and_then(datetime::from_integer))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        valid(datetime::from_float(number))
    }
}

fn valid<E: Error>(time: Option<DateTime<Utc>>) -> Result<Option<DateTime<Utc>>, E> {
    time.map(Some).ok_or_else(|| E::custom(INVALID_TIME))
}
