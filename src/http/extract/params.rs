//! Validation that path and query parameters share.

use super::fields::Fields;
use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Returns `text` unless it contains U+0000, which Postgres cannot store.
pub fn without_nul(name: &str, text: String, fields: &mut Fields) -> Option<String> {
    if text.contains('\0') {
        let msg = "Value error, text must not contain the character U+0000";
        fields.add(name.to_owned(), "value_error", msg, text);
        return None;
    }
    Some(text)
}

/// Parses `text` as an integer in `range`; on failure, adds a problem with parameter `name`.
pub(super) fn integer(
    name: &str,
    text: &str,
    range: RangeInclusive<i64>,
    fields: &mut Fields,
) -> Option<i64> {
    let name: Cow<'static, str> = name.to_owned().into();
    let Ok(number) = text.trim().parse::<i64>() else {
        let msg = "Input should be a valid integer, unable to parse string as an integer";
        fields.add(name, "int_parsing", msg, text);
        return None;
    };
    fields.in_range(name, number, range, text)
}
