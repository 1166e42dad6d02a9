//! Parses and validates a JSON object, and reports all its problems together.

use super::checked::{Checked, Rules};
use super::deserializers::INVALID_TIME;
use super::fields::Fields;
use crate::core::error::{Error, Loc, Result};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use std::borrow::Cow;

/// Maximum number of JSON values in a body: a parsed value takes much more memory than its text.
const MAX_VALUES: usize = 200_000;

/// Parses and validates the JSON in `bytes`. Fails with 422.
pub fn check<T: Checked>(bytes: &[u8], rules: &Rules<'_>) -> Result<T::Valid> {
    let mut fields = Fields::new("body");
    let valid = parse::<T>(bytes, &mut fields, rules);
    fields.finish()?;
    valid.ok_or_else(|| Error::Internal("an invalid body without a problem".into()))
}

fn parse<T: Checked>(bytes: &[u8], fields: &mut Fields, rules: &Rules<'_>) -> Option<T::Valid> {
    let value = object(bytes, fields)?;
    parse_object::<T>(&value, fields, rules)
}

/// Estimates the number of values in the JSON `bytes`: one per comma and per opening bracket.
fn count_values(bytes: &[u8]) -> usize {
    let (mut values, mut in_string, mut escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

/// Length of the UTF-8 byte-order mark at the start of `bytes`, which editors on Windows write. A
/// parser may ignore it (RFC 8259, section 8.1).
pub(super) fn byte_order_mark(bytes: &[u8]) -> usize {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    if bytes.starts_with(MARK) { MARK.len() } else { 0 }
}

/// Parses `bytes` as a JSON object. Adds a problem to `fields` and returns `None` on failure.
pub(super) fn object(bytes: &[u8], fields: &mut Fields) -> Option<Value> {
    if bytes.is_empty() {
        fields.add_at(vec![], "missing", "Field required", Value::Null);
        return None;
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        let msg = "JSON decode error: the body is encoded as UTF-16; send UTF-8";
        fields.add_at(vec![], "json_invalid", msg, Value::Null);
        return None;
    }
    if count_values(bytes) > MAX_VALUES {
        let msg = format!("Value error, the body has more than {MAX_VALUES} values");
        fields.add_at(vec![], "value_error", msg, Value::Null);
        return None;
    }
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => {
            // serde_json's message contains a line and a column, never the text itself.
            fields.add_at(
                vec![],
                "json_invalid",
                format!("JSON decode error: {error}"),
                Value::Null,
            );
            return None;
        }
    };
    if !value.is_object() {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        fields.add_at(vec![], "model_attributes_type", msg, Value::Null);
        return None;
    }
    Some(value)
}

/// Deserializes and validates the JSON object `value`.
pub(super) fn parse_object<T: Checked>(
    value: &Value,
    fields: &mut Fields,
    rules: &Rules<'_>,
) -> Option<T::Valid> {
    refuse_nul(value, &mut vec![], fields);
    let (sent, placeholders) = deserialize::<T>(value, fields)?;
    let mut found = fields.empty_copy();
    let valid = sent.check(&mut found, rules);
    fields.append_except(found, &placeholders);
    Some(valid)
}

/// Deserializes `body`. serde stops at the first unknown or missing field. To report all problems
/// together, this removes unknown fields, fills missing ones with placeholders and tries again; it
/// returns the names of the filled fields. It stops at a wrong type, and at any problem within an
/// entry of a list.
fn deserialize<T: Checked>(body: &Value, fields: &mut Fields) -> Option<(T, Vec<String>)> {
    let (mut repaired, mut placeholders) = (Cow::Borrowed(body), vec![]);
    while !fields.is_full() {
        let error = match serde_path_to_error::deserialize(&*repaired) {
            Ok(sent) => return Some((sent, placeholders)),
            Err(error) => error,
        };
        let message = error.inner().to_string();
        let named = message.split('`').nth(1).unwrap_or_default().to_owned();
        let path = error.path().to_string();
        let is_of_body = path == "." || path == named;
        let entries = repaired.to_mut().as_object_mut()?;
        if is_of_body && message.starts_with("unknown field") && entries.contains_key(&named) {
            // Remove all unknown fields together; one per attempt would make the cost quadratic.
            let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
            entries.retain(|name, _| known.contains(&name.as_str()));
            for name in body.as_object()?.keys().filter(|name| !known.contains(&name.as_str())) {
                let path = vec![Loc::Name(name.clone().into())];
                fields.add_at(path, EXTRA_FIELD.0, EXTRA_FIELD.1, Value::Null);
            }
        } else if is_of_body
            && message.starts_with("missing field")
            && !entries.contains_key(&named)
        {
            explain(&message, error.path(), body, fields);
            entries.insert(named.clone(), "".into());
            placeholders.push(named);
        } else if placeholders.contains(&path) {
            // Required fields are strings, numbers or lists.
            let other = match entries.get(&path)? {
                Value::String(_) => 1.into(),
                Value::Number(_) => Value::Array(vec![]),
                _ => return None,
            };
            entries.insert(path, other);
        } else {
            explain(&message, error.path(), body, fields);
            return None;
        }
    }
    None
}

/// Rejects U+0000, which Postgres cannot store.
fn refuse_nul(value: &Value, path: &mut Vec<Loc>, fields: &mut Fields) {
    let msg = "Value error, text must not contain the character U+0000";
    match value {
        Value::String(text) if text.contains('\0') => {
            fields.add_at(path.clone(), "value_error", msg, Value::Null);
        }
        Value::Array(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                path.push(Loc::Index(index));
                refuse_nul(entry, path, fields);
                path.pop();
            }
        }
        Value::Object(entries) => {
            for (name, entry) in entries {
                path.push(Loc::Name(name.clone().into()));
                if name.contains('\0') {
                    fields.add_at(path.clone(), "value_error", msg, Value::Null);
                }
                refuse_nul(entry, path, fields);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Type and message of the problem "unknown field", as in pydantic.
const EXTRA_FIELD: (&str, &str) = ("extra_forbidden", "Extra inputs are not permitted");

/// Adds serde's error `message` at `path` to `fields`, in pydantic's wording.
fn explain(message: &str, path: &Path, body: &Value, fields: &mut Fields) {
    let mut loc: Vec<Loc> = path
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Loc::Index(*index)),
            Segment::Map { key } => Some(Loc::Name(key.clone().into())),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect();
    let quoted = || message.split('`').nth(1).unwrap_or_default().to_owned();
    let (kind, msg) = if message.starts_with("missing field") {
        loc.push(Loc::Name(quoted().into()));
        ("missing", "Field required".to_owned())
    } else if message.starts_with("unknown field") {
        let name = Loc::Name(quoted().into());
        if loc.last() != Some(&name) {
            loc.push(name);
        }
        (EXTRA_FIELD.0, EXTRA_FIELD.1.to_owned())
    } else if message == INVALID_TIME {
        ("datetime_from_date_parsing", message.to_owned())
    } else {
        let expected = message.split("expected ").nth(1).unwrap_or_default();
        match expected {
            "a string" => ("string_type", "Input should be a valid string".to_owned()),
            "a boolean" => ("bool_type", "Input should be a valid boolean".to_owned()),
            "a sequence" => ("list_type", "Input should be a valid list".to_owned()),
            "i64" => ("int_type", "Input should be a valid integer".to_owned()),
            _ => ("value_error", format!("Value error, {message}")),
        }
    };
    // Do not echo the input: an unknown field may be a password under a misspelt name, and the
    // object with a missing field may contain one.
    if kind == "missing" || kind == "extra_forbidden" {
        return fields.add_at(loc, kind, msg, Value::Null);
    }
    let input = loc.iter().try_fold(body, |value, step| match step {
        Loc::Name(name) => value.get(name.as_ref()),
        Loc::Index(index) => value.get(index),
    });
    fields.add_at(loc, kind, msg, input.cloned().unwrap_or(Value::Null));
}
