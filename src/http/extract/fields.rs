//! Collects validation errors of a request, in pydantic v2's format.

use crate::core::error::{Error, FieldError, Loc, Result};
use crate::core::key_format;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Fields whose values are never echoed in an error.
const SECRETS: [&str; 6] =
    ["password", "current_password", "new_password", "key", "token", "api_key"];
/// Maximum length of an echoed string, in characters; longer ones are truncated.
const ECHO_CHARACTERS: usize = 200;
/// Maximum length of an error message, which may quote the input.
const MSG_CHARACTERS: usize = 400;
/// Replaces a secret in an error.
const HIDDEN: &str = "**********";
/// Maximum number of entries of an echoed list or object.
const ECHO_ENTRIES: usize = 50;
/// Maximum length of an echoed field name, in characters.
const NAME_CHARACTERS: usize = 100;
/// Length of the start of a text that is searched for secrets; only part of it is echoed.
const SEARCHED_CHARACTERS: usize = 2 * MSG_CHARACTERS;
/// Maximum number of problems in a response; more would only cost time and memory.
const MAX_PROBLEMS: usize = 100;

/// The problems found so far in one part of a request: `body`, `query`, `path` or `header`.
#[derive(Debug)]
pub struct Fields {
    part: &'static str,
    /// Path from the part to the fields that are being checked.
    prefix: Vec<Loc>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Creates a collector without problems.
    pub fn new(part: &'static str) -> Self {
        Self { part, prefix: vec![], errors: vec![] }
    }

    /// Runs `look` with locations relative to entry `index` of the list `field`.
    pub fn within<T>(
        &mut self,
        field: &'static str,
        index: usize,
        look: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.prefix.extend([Loc::Name(field.into()), Loc::Index(index)]);
        let result = look(self);
        self.prefix.truncate(self.prefix.len() - 2);
        result
    }

    /// Returns whether the maximum number of problems is reached.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_PROBLEMS
    }

    /// Fails with 422 if there are problems.
    pub fn finish(self) -> Result<()> {
        if self.errors.is_empty() { Ok(()) } else { Err(Error::Invalid(self.errors)) }
    }

    /// A 422 error with one problem: `field` of `part`.
    pub fn refusal(
        part: &'static str,
        field: &'static str,
        kind: &'static str,
        msg: impl Into<String>,
        input: impl Into<Value>,
    ) -> Error {
        let mut fields = Self::new(part);
        fields.add(field, kind, msg, input);
        Error::Invalid(fields.errors)
    }

    /// Creates a collector for the same part, without problems.
    pub(super) fn empty_copy(&self) -> Self {
        Self::new(self.part)
    }

    /// Adds the problems of `others`, except those of the fields named in `except`.
    pub(super) fn append_except(&mut self, others: Self, except: &[String]) {
        let excepted = |error: &FieldError| match error.loc.get(1) {
            Some(Loc::Name(name)) => except.iter().any(|field| field == name),
            _ => false,
        };
        self.errors.extend(others.errors.into_iter().filter(|error| !excepted(error)));
    }

    /// Adds a problem of `field`.
    pub fn add(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        kind: &'static str,
        msg: impl Into<String>,
        input: impl Into<Value>,
    ) {
        self.add_at(vec![Loc::Name(field.into())], kind, msg, input.into());
    }

    /// Adds a problem at `path` within the part.
    pub fn add_at(
        &mut self,
        path: Vec<Loc>,
        kind: &'static str,
        msg: impl Into<String>,
        mut input: Value,
    ) {
        if self.is_full() {
            return;
        }
        match path.last() {
            Some(Loc::Name(name)) if SECRETS.contains(&name.as_ref()) => input = hidden(),
            _ => sanitize(&mut input),
        }
        let start = std::iter::once(Loc::Name(self.part.into()));
        let loc = start.chain(self.prefix.iter().cloned()).chain(path.into_iter().map(truncate));
        let loc = loc.collect();
        let mut msg = without_secrets(&msg.into());
        shorten(&mut msg, MSG_CHARACTERS);
        self.errors.push(FieldError { r#type: kind.into(), loc, msg, input });
    }

    /// Checks that the length of `text` in characters is in `range`, and returns `text`.
    pub fn text(
        &mut self,
        field: &'static str,
        text: String,
        range: RangeInclusive<usize>,
    ) -> String {
        self.is_within(vec![Loc::Name(field.into())], &text, range);
        text
    }

    /// Returns whether the length of `text` in characters is in `range`; adds a problem at `path`
    /// if not.
    pub fn is_within(&mut self, path: Vec<Loc>, text: &str, range: RangeInclusive<usize>) -> bool {
        // Counting one character beyond the maximum is enough.
        let characters = text.chars().take(range.end().saturating_add(1)).count();
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let (kind, bound, n) = if characters < *range.start() {
            ("string_too_short", "least", *range.start())
        } else if characters > *range.end() {
            ("string_too_long", "most", *range.end())
        } else {
            return true;
        };
        let msg = format!("String should have at {bound} {n} character{}", plural(n));
        self.add_at(path, kind, msg, echo(text));
        false
    }

    /// Checks that `n` is in `range`, and returns `n`.
    pub fn integer(&mut self, field: &'static str, n: i64, range: RangeInclusive<i64>) -> i64 {
        self.in_range(field.into(), n, range, n).unwrap_or(n)
    }

    /// Returns `number` if it is in `range`; otherwise adds a problem that echoes `input`.
    pub(super) fn in_range(
        &mut self,
        field: Cow<'static, str>,
        number: i64,
        range: RangeInclusive<i64>,
        input: impl Into<Value>,
    ) -> Option<i64> {
        let (min, max) = (range.start(), range.end());
        if number < *min {
            let msg = format!("Input should be greater than or equal to {min}");
            self.add(field, "greater_than_equal", msg, input);
            return None;
        }
        if number > *max {
            let msg = format!("Input should be less than or equal to {max}");
            self.add(field, "less_than_equal", msg, input);
            return None;
        }
        Some(number)
    }

    /// Parses `text`, of at most `max` characters, with `FromStr`. On failure, adds a problem with
    /// the parser's error as its message and returns `None`.
    pub fn parsed<T: FromStr>(&mut self, field: &'static str, text: &str, max: usize) -> Option<T>
    where
        T::Err: Display,
    {
        if !self.is_within(vec![Loc::Name(field.into())], text, 0..=max) {
            return None;
        }
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(field, "value_error", format!("Value error, {error}"), text);
                None
            }
        }
    }
}

fn hidden() -> Value {
    Value::from(HIDDEN)
}

/// Hides secrets in the name in `step` and truncates it.
fn truncate(step: Loc) -> Loc {
    match step {
        Loc::Name(Cow::Owned(name)) => {
            let mut name = without_secrets(&name);
            shorten(&mut name, NAME_CHARACTERS);
            Loc::Name(name.into())
        }
        step => step,
    }
}

/// The start of `text`, long enough for any echo.
fn echo(text: &str) -> Value {
    beginning(text, SEARCHED_CHARACTERS).into()
}

fn beginning(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

/// The start of `text` with API keys and tokens hidden: a client may send them in any field.
fn without_secrets(text: &str) -> String {
    let text = beginning(text, SEARCHED_CHARACTERS);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split_inclusive(|c: char| !is_part(c)).map(|word| {
        if !key_format::PREFIXES.iter().any(|start| word.starts_with(start)) {
            return word.to_owned();
        }
        format!("{HIDDEN}{}", word.trim_start_matches(is_part))
    });
    words.collect()
}

fn shorten(text: &mut String, length: usize) {
    if let Some((end, _)) = text.char_indices().nth(length) {
        text.truncate(end);
        text.push('…');
    }
}

/// Hides secrets in `value` and truncates it.
fn sanitize(value: &mut Value) {
    match value {
        Value::String(text) => {
            *text = without_secrets(text);
            shorten(text, ECHO_CHARACTERS);
        }
        Value::Array(entries) => {
            entries.truncate(ECHO_ENTRIES);
            entries.iter_mut().for_each(sanitize);
        }
        Value::Object(entries) => {
            let surplus: Vec<String> = entries.keys().skip(ECHO_ENTRIES).cloned().collect();
            for name in surplus {
                entries.remove(&name);
            }
            for (name, entry) in entries {
                if SECRETS.contains(&name.as_str()) { *entry = hidden() } else { sanitize(entry) }
            }
        }
        _ => {}
    }
}
