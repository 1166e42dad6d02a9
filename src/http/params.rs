//! Extractors for path and query parameters. Errors name the invalid parameter.

use super::Fields;
use super::body::parse_time;
use super::listed::{Part, RequestTarget};
use crate::core::error::{Error, Loc, Result};
use axum::extract::{FromRequestParts, OriginalUri, RawPathParams};
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Maximum number of query parameters, because each lookup scans all of them.
const MAX_PAIRS: usize = 100;
/// Maximum size in bytes of a parameter that is repeated in the `Link` header of a response. All
/// parameters that routes accept are shorter.
const MAX_LINKED: usize = 2048;

/// A type that a path parameter can have.
pub trait PathValue: Sized + Send {
    /// Parses `text`; on failure, adds a problem with parameter `name` to `fields`.
    fn read(name: &str, text: &str, fields: &mut Fields) -> Option<Self>;
}

/// Ids: positive 64-bit integers.
impl PathValue for i64 {
    fn read(name: &str, text: &str, fields: &mut Fields) -> Option<Self> {
        integer(name, text, 1..=i64::MAX, fields)
    }
}

/// Returns `text` unless it contains U+0000, which Postgres cannot store.
pub fn without_nul(name: &str, text: String, fields: &mut Fields) -> Option<String> {
    if text.contains('\0') {
        let msg = "Value error, text must not contain the character U+0000";
        fields.add(name.to_owned(), "value_error", msg, text);
        return None;
    }
    Some(text)
}

/// The parameters of a path, in order: `Path<i64>` or `Path<(i64, i64)>`. Fails with 422.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// The types that [`Path`] can hold.
pub trait PathValues: Sized {
    /// Parses the parameters, given as pairs of name and text.
    fn read(params: &[(&str, &str)], fields: &mut Fields) -> Option<Self>;
}

impl<T: PathValue> PathValues for T {
    fn read(params: &[(&str, &str)], fields: &mut Fields) -> Option<Self> {
        let [(name, text)] = params else { return None };
        T::read(name, text, fields)
    }
}

impl<A: PathValue, B: PathValue> PathValues for (A, B) {
    fn read(params: &[(&str, &str)], fields: &mut Fields) -> Option<Self> {
        let [a, b] = params else { return None };
        let (a, b) = (A::read(a.0, a.1, fields), B::read(b.0, b.1, fields));
        Some((a?, b?))
    }
}

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: PathValues,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        // No resource has a path that is not UTF-8.
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Error::RouteNotFound)?;
        let pairs: Vec<_> = params.iter().collect();
        let mut fields = Fields::new("path");
        let values = T::read(&pairs, &mut fields);
        fields.finish()?;
        values.map(Self).ok_or_else(|| Error::Internal("unexpected path parameters".into()))
    }
}

/// The decoded query parameters of a request, and the problems found in them.
#[derive(Debug)]
pub struct QueryPairs {
    /// The full path of the request.
    path: String,
    pairs: Vec<(String, String)>,
    fields: Fields,
}

/// A type that is parsed from a query string.
pub trait FromQuery: Sized {
    /// Parses every parameter; adds problems to `query`.
    fn from_query(query: &mut QueryPairs) -> Self;
}

/// The query of a request. Fails with 422.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: FromQuery,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let text = parts.uri.query().unwrap_or_default();
        let pairs: Vec<_> =
            form_urlencoded::parse(text.as_bytes()).into_owned().take(MAX_PAIRS + 1).collect();
        if pairs.len() > MAX_PAIRS {
            let msg = format!("Value error, the query has more than {MAX_PAIRS} parameters");
            let mut fields = Fields::new("query");
            fields.add_at(vec![], "value_error", msg, Value::Null);
            fields.finish()?;
        }
        let whole = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |uri| &uri.0);
        // Paths with and without a trailing slash are the same route.
        let path = whole.path().trim_end_matches('/').to_owned();
        let fields = Fields::new("query");
        let mut query = QueryPairs { path, pairs, fields };
        let value = T::from_query(&mut query);
        query.fields.finish()?;
        Ok(Self(value))
    }
}

impl QueryPairs {
    /// The last value of `name`, as in FastAPI.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.pairs.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.clone())
    }

    /// The path and query of the request, for links.
    pub(super) fn target(&self) -> RequestTarget {
        let is_short = |(name, value): &&(String, String)| name.len() + value.len() <= MAX_LINKED;
        let pairs = self.pairs.iter().filter(is_short).cloned().collect();
        RequestTarget { path: self.path.clone(), pairs }
    }

    /// Parses `skip` and `limit` for a list without cursors.
    pub fn part(&mut self, max_skip: i64, limits: RangeInclusive<i64>, default: i64) -> Part {
        Part {
            skip: self.integer("skip", 0..=max_skip).unwrap_or(0),
            limit: self.integer("limit", limits).unwrap_or(default),
            max_skip,
            target: self.target(),
        }
    }

    /// An integer in `range`.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let text = self.get(name)?;
        integer(name, &text, range, &mut self.fields)
    }

    /// A boolean in any spelling that pydantic accepts.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let text = self.get(name)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" | "t" | "y" => Some(true),
            "false" | "0" | "no" | "off" | "f" | "n" => Some(false),
            _ => {
                let msg = "Input should be a valid boolean, unable to interpret input";
                self.fields.add(name.to_owned(), "bool_parsing", msg, text);
                None
            }
        }
    }

    /// A time in the same format as in bodies.
    pub fn time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let text = self.get(name)?;
        // An unescaped `+` is decoded as a space.
        let time = parse_time(&text).or_else(|| parse_time(&text.replace(' ', "+")));
        if time.is_none() {
            let msg = "Input should be a valid datetime";
            self.fields.add(name.to_owned(), "datetime_from_date_parsing", msg, text);
        }
        time
    }

    /// A string of at most `max` characters; `None` if it is empty.
    pub fn text(&mut self, name: &'static str, max: usize) -> Option<String> {
        let text = self.get(name)?;
        let fits = self.fields.is_within(vec![Loc::Name(name.into())], &text, 0..=max);
        let text = without_nul(name, text, &mut self.fields)?;
        Some(text).filter(|text| fits && !text.is_empty())
    }

    /// A required string of 1 to `max` characters, without leading and trailing whitespace.
    pub fn required_text(&mut self, name: &'static str, max: usize) -> Option<String> {
        let Some(text) = self.get(name) else {
            self.fields.add(name, "missing", "Field required", Value::Null);
            return None;
        };
        let text = without_nul(name, text.trim().to_owned(), &mut self.fields)?;
        Some(self.fields.text(name, text, 1..=max))
    }

    /// A value of at most `max` characters, parsed with `FromStr`, whose error becomes the message.
    pub fn parsed<T: FromStr>(&mut self, name: &'static str, max: usize) -> Option<T>
    where
        T::Err: Display,
    {
        let text = self.get(name)?;
        self.fields.parsed(name, &text, max)
    }

    /// One of the values that `parse` accepts; `expected` lists them for the error.
    pub fn one_of<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.get(name)?;
        let value = parse(&text);
        if value.is_none() {
            let msg = format!("Input should be {expected}");
            self.fields.add(name.to_owned(), "enum", msg, text);
        }
        value
    }
}

fn integer(name: &str, text: &str, range: RangeInclusive<i64>, fields: &mut Fields) -> Option<i64> {
    let name: Cow<'static, str> = name.to_owned().into();
    let Ok(number) = text.trim().parse::<i64>() else {
        let msg = "Input should be a valid integer, unable to parse string as an integer";
        fields.add(name, "int_parsing", msg, text);
        return None;
    };
    fields.in_range(name, number, range, text)
}

/// A filter and a page of the filtered list.
impl<F: FromQuery, P: FromQuery> FromQuery for (F, P) {
    fn from_query(query: &mut QueryPairs) -> Self {
        (F::from_query(query), P::from_query(query))
    }
}
