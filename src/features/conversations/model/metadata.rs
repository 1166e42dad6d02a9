//! Metadata that clients attach to conversations and messages. Octopus stores it unchanged.

use crate::http::Fields;
use serde_json::Value;
use serde_json::value::RawValue;

/// Maximum size in bytes, as JSON without whitespace.
const MAX_BYTES: usize = 16 * 1024;

/// The JSON text of an object of at most 16 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata(String);

impl Metadata {
    /// Validates the field `metadata`.
    pub(crate) fn check(fields: &mut Fields, value: Value) -> Option<Self> {
        if !value.is_object() {
            let msg = "Input should be a valid dictionary";
            fields.add("metadata", "dict_type", msg, value);
            return None;
        }
        let text = value.to_string();
        if text.len() > MAX_BYTES {
            let msg = format!("Value error, it must have at most {MAX_BYTES} bytes as JSON");
            fields.add("metadata", "value_error", msg, Value::Null);
            return None;
        }
        Some(Self(text))
    }

    /// The JSON text, as stored.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The JSON text, as stored.
    pub(crate) fn into_string(self) -> String {
        self.0
    }

    /// Converts stored text for a response; `None` if it is not valid JSON.
    pub(crate) fn shown(stored: Option<String>) -> Option<Box<RawValue>> {
        stored.and_then(|text| RawValue::from_string(text).ok())
    }
}
