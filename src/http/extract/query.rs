//! Query parameters. Errors name the invalid parameter.

use super::fields::Fields;
use super::params::{integer, without_nul};
use crate::core::datetime;
use crate::core::error::{Error, Loc, Result};
use crate::http::url_base::UrlBase;
use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Maximum number of query parameters, because each lookup scans all of them.
const MAX_PAIRS: usize = 100;

/// The decoded query parameters of a request, and the problems found in them.
#[derive(Debug)]
pub struct QueryPairs {
    /// The URL of the request without its query, as clients use it: [`UrlBase`] and the full path.
    url: String,
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
        let path = whole.path().trim_end_matches('/');
        let url = format!("{}{path}", UrlBase::in_request(&parts.extensions));
        let fields = Fields::new("query");
        let mut query = QueryPairs { url, pairs, fields };
        let value = T::from_query(&mut query);
        query.fields.finish()?;
        Ok(Self(value))
    }
}

impl QueryPairs {
    /// The last value of `name`, as in FastAPI.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.pairs.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.clone())
    }

    /// The URL of the request as clients use it, without its query and a trailing slash: an
    /// absolute one if `PUBLIC_URL` is set, otherwise a path.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The decoded parameters, in the order of the query.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
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
        // An unescaped `+` before the offset is decoded as a space.
        let with_plus = || text.rsplit_once(' ').map(|(local, offset)| format!("{local}+{offset}"));
        let time = datetime::parse(&text).or_else(|| datetime::parse(&with_plus()?));
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

/// A filter and a page of the filtered list.
impl<F: FromQuery, P: FromQuery> FromQuery for (F, P) {
    fn from_query(query: &mut QueryPairs) -> Self {
        (F::from_query(query), P::from_query(query))
    }
}
