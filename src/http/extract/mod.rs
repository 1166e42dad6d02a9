//! Extractors and the validation of what they read. They fail with
//! [`Error`](crate::core::error::Error).

pub(super) mod checked;
pub(super) mod deserializers;
pub(super) mod fields;
pub(super) mod if_match;
pub(super) mod if_none_match;
pub(super) mod json;
pub(super) mod ndjson;
pub(super) mod params;
pub(super) mod parse;
pub(super) mod path;
pub(super) mod query;
