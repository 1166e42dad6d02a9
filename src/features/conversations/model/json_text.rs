//! Text from the database, serialized into a response.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A text in a JSON response. Rows of a page arrive from the database as JSON, so their texts are
/// written without copying or escaping them again.
#[derive(Clone, Debug)]
pub enum JsonText<'t> {
    /// Unescaped text.
    Plain(String),
    /// A JSON string with its quotes.
    Json(&'t RawValue),
}

impl JsonText<'_> {
    /// Returns whether the text equals `word`, which must not need escaping in JSON.
    pub(crate) fn is(&self, word: &str) -> bool {
        match self {
            Self::Plain(text) => text == word,
            Self::Json(json) => json.get().trim_matches('"') == word,
        }
    }

    /// Size of the unescaped text in bytes; for JSON, the size of the escaped text.
    pub(crate) fn stored_bytes(&self) -> usize {
        match self {
            Self::Plain(text) => text.len(),
            Self::Json(_) => self.json_bytes(),
        }
    }

    /// Size of the escaped text in bytes, without quotes.
    pub(crate) fn json_bytes(&self) -> usize {
        let escaped_len = |byte: u8| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            0..0x20 => 6,
            _ => 1,
        };
        match self {
            Self::Plain(text) => text.bytes().map(escaped_len).sum(),
            Self::Json(json) => json.get().len() - 2,
        }
    }
}

impl From<String> for JsonText<'_> {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl<'t> From<&'t RawValue> for JsonText<'t> {
    fn from(text: &'t RawValue) -> Self {
        Self::Json(text)
    }
}

impl Serialize for JsonText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) => text.serialize(serializer),
            Self::Json(json) => json.serialize(serializer),
        }
    }
}
