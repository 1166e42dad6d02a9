//! JSON request bodies, fully validated before the handler runs.

use super::{Deadline, Fields, Revalidation};
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::core::error::{Error, Loc, Result};
use crate::core::offload::offload_large;
use axum::body::{Body, Bytes};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use chrono::{DateTime, Datelike, NaiveDateTime, SubsecRound, Timelike, Utc};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use std::borrow::Cow;
use std::sync::Arc;

/// Maximum number of JSON values in a body: a parsed value takes much more memory than its text.
const MAX_VALUES: usize = 200_000;

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

/// The JSON body of a request. Fails with 408, 413, 415 or 422.
#[derive(Debug)]
pub struct Json<T: Checked>(pub T::Valid);

impl<S, T: Checked> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    Arc<Config>: FromRef<S>,
    Clock: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        receive::<T, S, ()>(request, state, |_| ()).await.map(|(valid, ())| Self(valid))
    }
}

/// Reads and validates the body of a request; also returns `digest` of its bytes. A large body is
/// parsed, validated and digested outside the runtime's worker threads.
pub(super) async fn receive<T, S, D>(
    request: Request,
    state: &S,
    digest: impl FnOnce(&[u8]) -> D + Send + 'static,
) -> Result<(T::Valid, D)>
where
    T: Checked,
    D: Send + 'static,
    Arc<Config>: FromRef<S>,
    Clock: FromRef<S>,
{
    let config = Arc::<Config>::from_ref(state);
    let revalidation = request.extensions().get::<Revalidation>().cloned();
    // Some clients send a form `Content-Type` with an empty body.
    let bytes = if T::OPTIONAL && request.body().is_end_stream() {
        Bytes::new()
    } else {
        read(request, config.limits.body_bytes.clamp(T::MIN_LIMIT, T::MAX_BYTES)).await?
    };
    if let Some(revalidation) = revalidation {
        revalidation.ask().await?;
    }
    // Taken after the body has arrived, which can take long, so that future times are still future.
    let now = Clock::from_ref(state).now();
    // Replaced before `digest`, so that an empty body and `{}` have the same digest.
    let is_missing = T::OPTIONAL && [&b""[..], b"null"].contains(&bytes.trim_ascii());
    let bytes = if is_missing { Bytes::from_static(b"{}") } else { bytes };
    offload_large(bytes.len(), move || {
        let valid = check::<T>(&bytes, &Rules { now, config: &config })?;
        Ok((valid, digest(&bytes)))
    })
    .await
}

/// Parses and validates the JSON in `bytes`. Fails with 422.
pub fn check<T: Checked>(bytes: &[u8], rules: &Rules<'_>) -> Result<T::Valid> {
    let mut fields = Fields::new("body");
    let valid = parse::<T>(bytes, &mut fields, rules);
    fields.finish()?;
    valid.ok_or_else(|| Error::Internal("an invalid body without a problem".into()))
}

/// An empty body or an object without fields; anything else is rejected instead of silently
/// ignored. Fails with 408, 413, 415 or 422.
#[derive(Debug)]
pub struct NoBody;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

impl Checked for NoFields {
    type Valid = NoBody;
    const OPTIONAL: bool = true;

    fn check(self, _: &mut Fields, _: &Rules<'_>) -> NoBody {
        NoBody
    }
}

impl<S> FromRequest<S> for NoBody
where
    S: Send + Sync,
    Arc<Config>: FromRef<S>,
    Clock: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        Json::<NoFields>::from_request(request, state).await.map(|Json(none)| none)
    }
}

/// Reads a body of at most `max` bytes.
async fn read(request: Request, max: usize) -> Result<Bytes> {
    if !is_json(request.headers()) {
        return Err(Error::NotJson);
    }
    let content_length =
        request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if content_length.is_some_and(|length: usize| length > max) {
        return Err(Error::BodyTooLarge(max));
    }
    let deadline = request.extensions().get::<Deadline>().cloned();
    let collecting = collect(request.into_body(), max);
    match deadline {
        Some(deadline) => deadline.while_reading(collecting).await.ok_or(Error::BodyTooSlow)?,
        None => collecting.await,
    }
}

async fn collect(body: Body, max: usize) -> Result<Bytes> {
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::BodyTooLarge(max)),
        // The client disconnected or broke the framing, so details would not reach it.
        Err(_) => Err(Error::Refused("The request body could not be read".into())),
    }
}

/// A missing `Content-Type` counts as JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn parse<T: Checked>(bytes: &[u8], fields: &mut Fields, rules: &Rules<'_>) -> Option<T::Valid> {
    let value = object(bytes, fields)?;
    parse_object::<T>(&value, fields, rules)
}

/// Estimates the number of values in the JSON `bytes`: one per comma and per opening bracket.
fn count_values(bytes: &[u8]) -> usize {
    let (mut values, mut in_string, mut escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

/// Parses `bytes` as a JSON object. Adds a problem to `fields` and returns `None` on failure.
pub(super) fn object(bytes: &[u8], fields: &mut Fields) -> Option<Value> {
    if bytes.is_empty() {
        fields.add_at(vec![], "missing", "Field required", Value::Null);
        return None;
    }
    if count_values(bytes) > MAX_VALUES {
        let msg = format!("Value error, the body has more than {MAX_VALUES} values");
        fields.add_at(vec![], "value_error", msg, Value::Null);
        return None;
    }
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => {
            // serde_json's message contains a line and a column, never the text itself.
            fields.add_at(
                vec![],
                "json_invalid",
                format!("JSON decode error: {error}"),
                Value::Null,
            );
            return None;
        }
    };
    if !value.is_object() {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        fields.add_at(vec![], "model_attributes_type", msg, Value::Null);
        return None;
    }
    Some(value)
}

/// Deserializes and validates the JSON object `value`.
pub(super) fn parse_object<T: Checked>(
    value: &Value,
    fields: &mut Fields,
    rules: &Rules<'_>,
) -> Option<T::Valid> {
    refuse_nul(value, &mut vec![], fields);
    let (sent, placeholders) = deserialize::<T>(value, fields)?;
    let mut found = fields.empty_copy();
    let valid = sent.check(&mut found, rules);
    fields.append_except(found, &placeholders);
    Some(valid)
}

/// Deserializes `body`. serde stops at the first unknown or missing field. To report all problems
/// together, this removes unknown fields, fills missing ones with placeholders and tries again; it
/// returns the names of the filled fields. It stops at a wrong type, and at any problem within an
/// entry of a list.
fn deserialize<T: Checked>(body: &Value, fields: &mut Fields) -> Option<(T, Vec<String>)> {
    let (mut repaired, mut placeholders) = (Cow::Borrowed(body), vec![]);
    while !fields.is_full() {
        let error = match serde_path_to_error::deserialize(&*repaired) {
            Ok(sent) => return Some((sent, placeholders)),
            Err(error) => error,
        };
        let message = error.inner().to_string();
        let named = message.split('`').nth(1).unwrap_or_default().to_owned();
        let path = error.path().to_string();
        let is_of_body = path == "." || path == named;
        let entries = repaired.to_mut().as_object_mut()?;
        if is_of_body && message.starts_with("unknown field") && entries.contains_key(&named) {
            // Remove all unknown fields together; one per attempt would make the cost quadratic.
            let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
            entries.retain(|name, _| known.contains(&name.as_str()));
            for name in body.as_object()?.keys().filter(|name| !known.contains(&name.as_str())) {
                let path = vec![Loc::Name(name.clone().into())];
                fields.add_at(path, EXTRA_FIELD.0, EXTRA_FIELD.1, Value::Null);
            }
        } else if is_of_body
            && message.starts_with("missing field")
            && !entries.contains_key(&named)
        {
            explain(&message, error.path(), body, fields);
            entries.insert(named.clone(), "".into());
            placeholders.push(named);
        } else if placeholders.contains(&path) {
            // Required fields are strings, numbers or lists.
            let other = match entries.get(&path)? {
                Value::String(_) => 1.into(),
                Value::Number(_) => Value::Array(vec![]),
                _ => return None,
            };
            entries.insert(path, other);
        } else {
            explain(&message, error.path(), body, fields);
            return None;
        }
    }
    None
}

/// Rejects U+0000, which Postgres cannot store.
fn refuse_nul(value: &Value, path: &mut Vec<Loc>, fields: &mut Fields) {
    let msg = "Value error, text must not contain the character U+0000";
    match value {
        Value::String(text) if text.contains('\0') => {
            fields.add_at(path.clone(), "value_error", msg, Value::Null);
        }
        Value::Array(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                path.push(Loc::Index(index));
                refuse_nul(entry, path, fields);
                path.pop();
            }
        }
        Value::Object(entries) => {
            for (name, entry) in entries {
                path.push(Loc::Name(name.clone().into()));
                if name.contains('\0') {
                    fields.add_at(path.clone(), "value_error", msg, Value::Null);
                }
                refuse_nul(entry, path, fields);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Type and message of the problem "unknown field", as in pydantic.
const EXTRA_FIELD: (&str, &str) = ("extra_forbidden", "Extra inputs are not permitted");

/// Adds serde's error `message` at `path` to `fields`, in pydantic's wording.
fn explain(message: &str, path: &Path, body: &Value, fields: &mut Fields) {
    let mut loc: Vec<Loc> = path
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Loc::Index(*index)),
            Segment::Map { key } => Some(Loc::Name(key.clone().into())),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect();
    let quoted = || message.split('`').nth(1).unwrap_or_default().to_owned();
    let (kind, msg) = if message.starts_with("missing field") {
        loc.push(Loc::Name(quoted().into()));
        ("missing", "Field required".to_owned())
    } else if message.starts_with("unknown field") {
        let name = Loc::Name(quoted().into());
        if loc.last() != Some(&name) {
            loc.push(name);
        }
        (EXTRA_FIELD.0, EXTRA_FIELD.1.to_owned())
    } else if message == INVALID_TIME {
        ("datetime_from_date_parsing", message.to_owned())
    } else {
        let expected = message.split("expected ").nth(1).unwrap_or_default();
        match expected {
            "a string" => ("string_type", "Input should be a valid string".to_owned()),
            "a boolean" => ("bool_type", "Input should be a valid boolean".to_owned()),
            "a sequence" => ("list_type", "Input should be a valid list".to_owned()),
            "i64" => ("int_type", "Input should be a valid integer".to_owned()),
            _ => ("value_error", format!("Value error, {message}")),
        }
    };
    // Do not echo the input: an unknown field may be a password under a misspelt name, and the
    // object with a missing field may contain one.
    if kind == "missing" || kind == "extra_forbidden" {
        return fields.add_at(loc, kind, msg, Value::Null);
    }
    let input = loc.iter().try_fold(body, |value, step| match step {
        Loc::Name(name) => value.get(name.as_ref()),
        Loc::Index(index) => value.get(index),
    });
    fields.add_at(loc, kind, msg, input.cloned().unwrap_or(Value::Null));
}

/// Deserializes a field that may be absent but not null.
pub fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// Deserializes a field for which absent and null differ: `None` is absent, `Some(None)` is null.
pub fn double_option<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(d).map(Some)
}

const INVALID_TIME: &str = "Input should be a valid datetime";

/// Deserializes a time: RFC 3339, or the same without an offset, which means UTC. Truncated to
/// microseconds.
pub fn time<'de, D: Deserializer<'de>>(d: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
    parse_time(&text).map(Some).ok_or_else(|| D::Error::custom(INVALID_TIME))
}

/// [`time`], for a field for which absent and null differ.
pub fn double_option_time<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Option<DateTime<Utc>>>, D::Error> {
    time(d).map(Some)
}

/// Parses a time as [`time`] describes. Years after 9999 have no RFC 3339 form.
pub(super) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let with_offset = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let without = || {
        let naive = text.parse::<NaiveDateTime>();
        naive.or_else(|_| NaiveDateTime::parse_from_str(text, "%F %T%.f")).map(|t| t.and_utc())
    };
    let time = with_offset.or_else(|_| without()).ok()?.trunc_subsecs(6);
    // Databases and clients disagree on how to represent a leap second.
    let is_leap_second = time.nanosecond() >= 1_000_000_000;
    ((0..=9999).contains(&time.year()) && !is_leap_second).then_some(time)
}
