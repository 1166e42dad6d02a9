//! Reads typed values out of the environment, and remembers every problem.

use secrecy::SecretString;
use std::collections::HashMap;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// Every problem of a configuration, one sentence each, naming its variable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has problems:\n  {}", .0.join("\n  "))]
pub struct Problems(pub Vec<String>);

/// The variables, and what was wrong with those read so far.
pub(super) struct Reader {
    variables: HashMap<String, String>,
    problems: Vec<String>,
}

impl Reader {
    pub(super) fn new(variables: HashMap<String, String>) -> Self {
        Self { variables, problems: vec![] }
    }

    /// `value`, if no variable had a problem.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Problems> {
        if self.problems.is_empty() { Ok(value) } else { Err(Problems(self.problems)) }
    }

    /// The text of `name`; set but blank is unset.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|v| v.trim()).filter(|v| !v.is_empty()).map(str::to_owned)
    }

    pub(super) fn problem(&mut self, name: &str, what: impl Display) {
        self.problems.push(format!("{name} {what}"));
    }

    /// `name` by its `FromStr`; `what` completes "NAME must be …".
    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, default: T, what: &str) -> T {
        match self.text(name).map(|text| text.parse()) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(_)) => {
                self.problem(name, format_args!("must be {what}"));
                default
            }
        }
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        let Some(text) = self.text(name) else { return default };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                self.problem(name, "must be true or false");
                default
            }
        }
    }

    /// A rate per minute. Nought would refuse everybody, so it is a mistake.
    pub(super) fn rate(&mut self, name: &str, default: u32) -> NonZeroU32 {
        let default = NonZeroU32::new(default).unwrap_or(NonZeroU32::MIN);
        self.parsed(name, default, "a whole number from 1 to 4294967295")
    }

    pub(super) fn seconds(&mut self, name: &str, default: u64) -> Duration {
        let seconds = self.parsed(name, default, "a whole number of seconds");
        if seconds == 0 || seconds > 86_400 {
            self.problem(name, "must be from 1 to 86400 seconds");
        }
        Duration::from_secs(seconds)
    }

    /// One of `choices`.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)], default: T) -> T {
        let Some(text) = self.text(name) else { return default };
        if let Some((_, value)) = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text))
        {
            return *value;
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        self.problem(name, format_args!("must be one of {}", words.join(", ")));
        default
    }

    /// A comma-separated list.
    pub(super) fn list<T: FromStr>(&mut self, name: &str, what: &str) -> Vec<T> {
        let text = self.text(name).unwrap_or_default();
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let mut values = vec![];
        for entry in entries {
            match entry.parse() {
                Ok(value) => values.push(value),
                Err(_) => self.problem(name, format_args!("has {entry:?}, which is not {what}")),
            }
        }
        values
    }

    /// `name`, or the contents of the file that `name_FILE` names. Never part of a message.
    pub(super) fn secret(&mut self, name: &str) -> Option<SecretString> {
        let file_variable = format!("{name}_FILE");
        match (self.text(name), self.text(&file_variable)) {
            (Some(_), Some(_)) => {
                self.problem(name, format_args!("and {file_variable} are both set; set one"));
                None
            }
            (Some(value), None) => Some(value.into()),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(value) if value.trim().is_empty() => {
                    self.problem(&file_variable, format_args!("names an empty file, {path}"));
                    None
                }
                Ok(value) => Some(value.trim().into()),
                Err(error) => {
                    self.problem(&file_variable, format_args!("names {path}: {error}"));
                    None
                }
            },
            (None, None) => None,
        }
    }
}
