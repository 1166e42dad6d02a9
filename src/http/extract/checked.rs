//! What a JSON request body must implement to be validated.

use super::fields::Fields;
use crate::core::config::Config;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;

/// Room for a body with a few short texts, in bytes: clients may escape each character, which takes
/// up to 12 bytes (`\ud83d\ude00`).
pub const SHORT_TEXTS_BYTES: usize = 32 * 1024;

/// A request body as sent, which validation turns into a `Valid` value.
pub trait Checked: DeserializeOwned + Send + 'static {
    /// The validated value that the handler receives.
    type Valid: Send + 'static;
    /// Maximum body size in bytes, if lower than `MAX_BODY_BYTES`.
    const MAX_BYTES: usize = usize::MAX;
    /// Body size in bytes that is accepted even if `MAX_BODY_BYTES` is lower.
    const MIN_LIMIT: usize = 0;
    /// Whether an empty body or `null` counts as an object without fields.
    const OPTIONAL: bool = false;
    /// Whether the body is a JSON Merge Patch (RFC 7396) and may have the content type
    /// `application/merge-patch+json`.
    const MERGE_PATCH: bool = false;

    /// Checks every rule and adds each violation to `fields`. The result is valid only if nothing
    /// was added.
    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> Self::Valid;
}

/// What validation depends on besides the body.
#[derive(Debug)]
pub struct Rules<'r> {
    /// The current time, for values that must be in the future.
    pub now: DateTime<Utc>,
    /// The configuration.
    pub config: &'r Config,
}
