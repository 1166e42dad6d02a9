//! Text on its way from the database into an answer.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A text that is shown as JSON. A page has hundreds of them, which come from the database as JSON:
/// they are neither copied nor escaped anew.
#[derive(Clone, Debug)]
pub enum JsonText<'t> {
    /// The text itself.
    Plain(String),
    /// As JSON writes it, in quotes.
    Json(&'t RawValue),
}

impl JsonText<'_> {
    /// Whether it is this word, which has nothing that JSON would escape.
    pub(in super::super) fn is(&self, word: &str) -> bool {
        match self {
            Self::Plain(text) => text == word,
            Self::Json(json) => json.get().trim_matches('"') == word,
        }
    }

    /// The bytes it takes unescaped; of one that is JSON, as many as it takes there.
    pub(in super::super) fn stored_bytes(&self) -> usize {
        match self {
            Self::Plain(text) => text.len(),
            Self::Json(_) => self.json_bytes(),
        }
    }

    /// The bytes it takes between quotes.
    pub(in super::super) fn json_bytes(&self) -> usize {
        let written = |byte: u8| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            0..0x20 => 6,
            _ => 1,
        };
        match self {
            Self::Plain(text) => text.bytes().map(written).sum(),
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
