//! Metadata that clients attach to conversations and messages. Octopus stores it unchanged.

use crate::core::error::Result;
use crate::http::Fields;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Maximum size in bytes, as JSON without whitespace.
const MAX_BYTES: usize = 16 * 1024;

/// The JSON text of an object of at most 16 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata(String);

impl Metadata {
    /// Validates the field `metadata`.
    pub(crate) fn check(fields: &mut Fields, value: Value) -> Option<Self> {
        let value = object(fields, value)?;
        text(fields, &value).map(Self)
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

/// A JSON Merge Patch (RFC 7396) of metadata: an object of at most 16 KiB.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataPatch(Value);

impl MetadataPatch {
    /// Validates the field `metadata`.
    pub(crate) fn check(fields: &mut Fields, value: Value) -> Option<Self> {
        let value = object(fields, value)?;
        text(fields, &value).map(|_| Self(value))
    }

    /// Returns the `stored` metadata with this patch applied. Fails with 422 if the result has more
    /// than 16 KiB.
    pub(crate) fn applied_to(&self, stored: Option<&str>) -> Result<Option<Metadata>> {
        let stored = stored.and_then(|text| serde_json::from_str(text).ok());
        let mut value = stored.unwrap_or_default();
        merge(&mut value, &self.0);
        let mut fields = Fields::new("body");
        let text = text(&mut fields, &value);
        fields.finish()?;
        Ok(text.map(Metadata))
    }
}

/// Applies `patch` to `target`: MergePatch of RFC 7396, section 2. The parser limits the depth of
/// both.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(entries) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            entries.remove(name);
        } else {
            merge(entries.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Returns `value` if it is an object; otherwise adds a problem.
fn object(fields: &mut Fields, value: Value) -> Option<Value> {
    if value.is_object() {
        return Some(value);
    }
    fields.add("metadata", "dict_type", "Input should be a valid dictionary", value);
    None
}

/// Returns the JSON text of `value` if it has at most `MAX_BYTES`; otherwise adds a problem.
fn text(fields: &mut Fields, value: &Value) -> Option<String> {
    let text = value.to_string();
    if text.len() <= MAX_BYTES {
        return Some(text);
    }
    let msg = format!("Value error, it must have at most {MAX_BYTES} bytes as JSON");
    fields.add("metadata", "value_error", msg, Value::Null);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_has_the_results_of_rfc_7396() {
        // RFC 7396, appendix A.
        for (original, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut value = original.clone();
            merge(&mut value, &patch);
            assert_eq!(value, expected, "{original} {patch}");
        }
    }
}
