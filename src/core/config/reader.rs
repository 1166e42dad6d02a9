//! Reads typed values from environment variables and collects every problem.

use secrecy::SecretString;
use std::collections::HashMap;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// All problems of a configuration. Each message names its variable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is invalid:\n  {}", .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

/// The variables, and the problems of those read so far.
pub(super) struct Reader {
    variables: HashMap<String, String>,
    problems: Vec<String>,
}

impl Reader {
    pub(super) fn new(variables: HashMap<String, String>) -> Self {
        Self { variables, problems: vec![] }
    }

    /// Returns `value`, or all problems if there are any.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(value) } else { Err(ConfigError(self.problems)) }
    }

    /// Returns the trimmed value of `name`. A blank value counts as unset.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|v| v.trim()).filter(|v| !v.is_empty()).map(str::to_owned)
    }

    /// Adds a problem; `what` completes "NAME …".
    pub(super) fn problem(&mut self, name: &str, what: impl Display) {
        self.problems.push(format!("{name} {what}"));
    }

    /// Parses `name` with `FromStr`; `what` completes "NAME must be …".
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

    /// Reads a rate per minute. Zero is invalid, because it would refuse every request.
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

    /// Reads one of `choices`, ignoring case.
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

    /// Reads a comma-separated list; `what` completes "expected …".
    pub(super) fn list<T: FromStr>(&mut self, name: &str, what: &str) -> Vec<T> {
        let text = self.text(name).unwrap_or_default();
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let mut values = vec![];
        for entry in entries {
            match entry.parse() {
                Ok(value) => values.push(value),
                Err(_) => self.problem(name, format_args!("contains {entry:?}; expected {what}")),
            }
        }
        values
    }

    /// Returns the value of `name`, or the trimmed contents of the file that `name_FILE` names. No
    /// error message contains a secret.
    pub(super) fn secret(&mut self, name: &str) -> Option<SecretString> {
        let file_variable = format!("{name}_FILE");
        match (self.text(name), self.text(&file_variable)) {
            (Some(_), Some(_)) => {
                self.problem(name, format_args!("and {file_variable} are both set; set only one"));
                None
            }
            (Some(value), None) => Some(value.into()),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(value) if value.trim().is_empty() => {
                    self.problem(&file_variable, format_args!("names an empty file: {path}"));
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
