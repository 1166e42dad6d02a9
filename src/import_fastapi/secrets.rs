//! Finds and replaces the secrets of imported keys in other texts, so that they are not stored.

use super::error::ImportError;
use crate::core::error::Error;
use aho_corasick::AhoCorasick;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// Minimum length of a secret to be found inside a text, in bytes. A shorter one may be a common
/// word: it is found only if it is the whole text.
const MIN_BYTES: usize = 8;
/// Minimum length of a secret to be found in a message, in bytes. Messages are longer, so chance
/// matches are more likely.
const MIN_BYTES_IN_MESSAGES: usize = 16;
/// The replacement for a secret.
const SUBSTITUTE: &str = "[key]";

/// The secrets of all keys. Each search scans the text once, regardless of their number.
#[derive(Default)]
pub struct Secrets {
    short: Vec<SecretString>,
    long: Option<AhoCorasick>,
}

impl Secrets {
    pub fn new(secrets: Vec<String>) -> Result<Self, ImportError> {
        let (long, short): (Vec<String>, Vec<String>) = secrets
            .into_iter()
            .filter(|secret| !secret.is_empty())
            .partition(|secret| secret.len() >= MIN_BYTES);
        let failed = |error: aho_corasick::BuildError| Error::Internal(error.to_string().into());
        let long = if long.is_empty() { None } else { Some(AhoCorasick::new(long)) };
        let long = long.transpose().map_err(failed)?;
        Ok(Self { short: short.into_iter().map(SecretString::from).collect(), long })
    }

    /// Returns whether `text` contains a secret.
    pub fn found_in(&self, text: &str) -> bool {
        self.is_short_secret(text) || self.long.as_ref().is_some_and(|long| long.is_match(text))
    }

    /// Returns whether a message contains a secret that is too long to be a chance match.
    pub fn found_in_message(&self, text: &str) -> bool {
        let Some(long) = &self.long else { return false };
        long.find_overlapping_iter(text).any(|found| found.len() >= MIN_BYTES_IN_MESSAGES)
    }

    /// `text` with all secrets replaced, also overlapping ones.
    pub fn redact(&self, text: String) -> String {
        if self.is_short_secret(&text) {
            return SUBSTITUTE.to_owned();
        }
        let Some(long) = self.long.as_ref().filter(|long| long.is_match(&text)) else {
            return text;
        };
        let mut found: Vec<_> =
            long.find_overlapping_iter(&text).map(|found| found.range()).collect();
        found.sort_unstable_by_key(|range| range.start);
        let mut clean = String::with_capacity(text.len());
        let mut end = 0;
        for range in found {
            if range.start >= end {
                clean.push_str(&text[end..range.start]);
                clean.push_str(SUBSTITUTE);
            }
            end = end.max(range.end);
        }
        clean.push_str(&text[end..]);
        clean
    }

    /// `value` with the secrets in all names, strings and numbers replaced.
    pub fn redact_json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => self.redact(text).into(),
            Value::Number(number) if self.found_in(&number.to_string()) => {
                self.redact(number.to_string()).into()
            }
            Value::Array(values) => {
                values.into_iter().map(|value| self.redact_json(value)).collect()
            }
            Value::Object(fields) => {
                let fields = fields.into_iter();
                fields.map(|(name, value)| (self.redact(name), self.redact_json(value))).collect()
            }
            other => other,
        }
    }

    fn is_short_secret(&self, text: &str) -> bool {
        self.short.iter().any(|secret| secret.expose_secret() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secrets() -> Secrets {
        let all = ["abc", "secret-1", "secret-1-and-more", "more-of-another", "12345678", ""];
        Secrets::new(all.map(str::to_owned).to_vec()).unwrap_or_default()
    }

    #[test]
    fn nested_and_overlapping_secrets_are_replaced_whole() {
        for (text, expected) in [
            ("", ""),
            ("abc", "[key]"),
            ("abc or so", "abc or so"),
            ("a secret-1, and secret-1", "a [key], and [key]"),
            ("secret-1-and-more", "[key]"),
            ("secret-1-and-more-of-another!", "[key]!"),
            ("secret-1secret-1", "[key][key]"),
            ("ä secret-1 ö", "ä [key] ö"),
        ] {
            assert_eq!(secrets().redact(text.to_owned()), expected);
            assert_eq!(secrets().found_in(text), text != expected, "{text}");
        }
    }

    #[test]
    fn a_short_secret_in_a_message_is_ignored() {
        assert!(!secrets().found_in_message("it is secret-1"));
        assert!(secrets().found_in_message("it is secret-1-and-more"));
        assert!(!Secrets::default().found_in_message("it is secret-1-and-more"));
    }

    #[test]
    fn secrets_in_all_parts_of_a_value_are_replaced() {
        let value: Value = serde_json::from_str(
            r#"{"\u0073ecret-1": ["abc", 12345678, 7, null, {"a": "secret\u002d1"}]}"#,
        )
        .unwrap_or_default();
        let expected = json!({"[key]": ["[key]", "[key]", 7, null, {"a": "[key]"}]});
        assert_eq!(secrets().redact_json(value), expected);
    }
}
