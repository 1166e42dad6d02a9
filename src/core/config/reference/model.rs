//! Groups of settings and their descriptions.

/// Settings that belong together.
#[derive(Debug)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// Its settings.
    pub settings: &'static [Setting],
}

/// One environment variable. Texts are Markdown.
#[derive(Debug)]
pub struct Setting {
    /// Name of the variable.
    pub name: &'static str,
    /// Default value; empty if there is none.
    pub default: &'static str,
    /// Unit or form of the value.
    pub unit: &'static str,
    /// A value that differs from the default; may be empty.
    pub example: &'static str,
    /// Whether the value is a secret.
    pub kind: Kind,
    /// What the setting does, in whole sentences.
    pub meaning: &'static str,
}

/// Whether a setting can be read from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The variable only.
    Plain,
    /// The variable, or the file that `NAME_FILE` names.
    Secret,
}
