//! The secrets of the original's keys, which must stand nowhere else.

use super::MoveError;
use crate::core::error::Error;
use aho_corasick::AhoCorasick;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// A shorter secret may be a word of a text by chance: only a text that is all of it counts.
const RECOGNISED: usize = 8;
/// The same of what people say to each other, which is longer and is kept as it is.
const RECOGNISED_IN_SPEECH: usize = 16;
/// What stands where a secret stood.
const SUBSTITUTE: &str = "[key]";

/// All of them. However many there are, a text is gone through once.
#[derive(Default)]
pub struct Secrets {
    short: Vec<SecretString>,
    long: Option<AhoCorasick>,
}

impl Secrets {
    pub fn new(secrets: Vec<String>) -> Result<Self, MoveError> {
        let (long, short): (Vec<String>, Vec<String>) = secrets
            .into_iter()
            .filter(|secret| !secret.is_empty())
            .partition(|secret| secret.len() >= RECOGNISED);
        let failed = |error: aho_corasick::BuildError| Error::Internal(error.to_string().into());
        let long = if long.is_empty() { None } else { Some(AhoCorasick::new(long)) };
        let long = long.transpose().map_err(failed)?;
        Ok(Self { short: short.into_iter().map(SecretString::from).collect(), long })
    }

    /// Whether one stands in `text`, or is it.
    pub fn stand_in(&self, text: &str) -> bool {
        self.are_all_of(text) || self.long.as_ref().is_some_and(|long| long.is_match(text))
    }

    /// Whether one stands in a message that is hardly there by chance.
    pub fn stand_in_speech(&self, text: &str) -> bool {
        let Some(long) = &self.long else { return false };
        long.find_overlapping_iter(text).any(|found| found.len() >= RECOGNISED_IN_SPEECH)
    }

    /// `text`, with something else where secrets stand, however they lie over one another.
    pub fn taken_out(&self, text: String) -> String {
        if self.are_all_of(&text) {
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

    /// The same for every text and number in `value`.
    pub fn taken_out_of(&self, value: Value) -> Value {
        match value {
            Value::String(text) => self.taken_out(text).into(),
            Value::Number(number) if self.stand_in(&number.to_string()) => {
                self.taken_out(number.to_string()).into()
            }
            Value::Array(values) => {
                values.into_iter().map(|value| self.taken_out_of(value)).collect()
            }
            Value::Object(fields) => {
                let fields = fields.into_iter();
                fields
                    .map(|(name, value)| (self.taken_out(name), self.taken_out_of(value)))
                    .collect()
            }
            other => other,
        }
    }

    fn are_all_of(&self, text: &str) -> bool {
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
    fn nothing_of_a_secret_is_left_where_others_stand_in_it_or_over_it() {
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
            assert_eq!(secrets().taken_out(text.to_owned()), expected);
            assert_eq!(secrets().stand_in(text), text != expected, "{text}");
        }
    }

    #[test]
    fn a_short_secret_in_a_message_is_taken_for_a_word() {
        assert!(!secrets().stand_in_speech("it is secret-1"));
        assert!(secrets().stand_in_speech("it is secret-1-and-more"));
        assert!(!Secrets::default().stand_in_speech("it is secret-1-and-more"));
    }

    #[test]
    fn every_text_of_a_value_is_gone_through() {
        let value: Value = serde_json::from_str(
            r#"{"\u0073ecret-1": ["abc", 12345678, 7, null, {"a": "secret\u002d1"}]}"#,
        )
        .unwrap_or_default();
        let expected = json!({"[key]": ["[key]", "[key]", 7, null, {"a": "[key]"}]});
        assert_eq!(secrets().taken_out_of(value), expected);
    }
}
