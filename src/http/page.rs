//! Which part of a list a request asks for, and in which order.

use super::cursor::{CursorKey, List, MAX_LENGTH};
use super::listed::{Slice, Target};
use super::params::{FromQuery, QueryPairs};
use crate::core::error::{Error, Result};
use std::ops::RangeInclusive;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

const LIMITS: RangeInclusive<i64> = 1..=1000;
const DEFAULT_LIMIT: i64 = 100;

/// Which part of a list to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Entries to leave out from the start.
    #[param(minimum = 0, default = 0, required = false)]
    pub skip: i64,
    /// Most entries to give.
    #[param(minimum = 1, maximum = 1000, default = 100, required = false)]
    pub limit: i64,
}

impl FromQuery for Page {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { skip: skip(query).unwrap_or(0), limit: limit(query) }
    }
}

fn skip(query: &mut QueryPairs) -> Option<i64> {
    query.integer("skip", 0..=i64::MAX)
}

fn limit(query: &mut QueryPairs) -> i64 {
    query.integer("limit", LIMITS).unwrap_or(DEFAULT_LIMIT)
}

/// Which end of a list comes first: that of the smallest keys, which are the oldest entries, or
/// that of the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the oldest to the newest.
    Ascending,
    /// From the newest to the oldest.
    Descending,
}

/// The orders that a list can be shown in, as `order` names them.
pub trait Order: Copy + PartialEq + 'static {
    /// The words, and what each means.
    const WORDS: &'static [(&'static str, Self)];
    /// What it is without a word.
    const DEFAULT: Self;

    /// Which end comes first.
    fn direction(self) -> Direction;
}

/// Either order; the oldest entry is first unless the request says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldestFirst(pub Direction);

impl Order for OldestFirst {
    const WORDS: &'static [(&'static str, Self)] =
        &[("asc", Self(Direction::Ascending)), ("desc", Self(Direction::Descending))];
    const DEFAULT: Self = Self(Direction::Ascending);

    fn direction(self) -> Direction {
        self.0
    }
}

/// Either order; the newest entry is first unless the request says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewestFirst(pub Direction);

impl Order for NewestFirst {
    const WORDS: &'static [(&'static str, Self)] =
        &[("asc", Self(Direction::Ascending)), ("desc", Self(Direction::Descending))];
    const DEFAULT: Self = Self(Direction::Descending);

    fn direction(self) -> Direction {
        self.0
    }
}

/// Which part of a list to give, and in which order: some entries from the start, or those beside a
/// cursor.
#[derive(Debug)]
pub struct Window<O> {
    /// The order in which the entries are shown. It does not say on which side of a cursor they are.
    pub order: O,
    skip: Option<i64>,
    limit: i64,
    after: Option<String>,
    before: Option<String>,
    /// Of the request; without one, there are no links.
    target: Option<Target>,
}

impl<O: Order> FromQuery for Window<O> {
    fn from_query(query: &mut QueryPairs) -> Self {
        let named = |text: &str| O::WORDS.iter().find(|(word, _)| *word == text);
        let order =
            query.one_of("order", &words::<O>(), |text| named(text).map(|(_, order)| *order));
        Self {
            order: order.unwrap_or(O::DEFAULT),
            skip: skip(query),
            limit: limit(query),
            after: query.get("after"),
            before: query.get("before"),
            target: Some(query.target()),
        }
    }
}

/// The words for an order, as pydantic lists them.
fn words<O: Order>() -> String {
    let mut text = String::new();
    for (n, (word, _)) in O::WORDS.iter().enumerate() {
        let between = match n {
            0 => "",
            _ if n + 1 == O::WORDS.len() => " or ",
            _ => ", ",
        };
        text = format!("{text}{between}'{word}'");
    }
    text
}

/// A page that nobody asks for over HTTP.
impl<O: Order> From<Page> for Window<O> {
    fn from(page: Page) -> Self {
        let (skip, limit) = (Some(page.skip), page.limit);
        Self { order: O::DEFAULT, skip, limit, after: None, before: None, target: None }
    }
}

impl<O: Order> Window<O> {
    /// The part of `list`, which is sorted by `K`. Fails with 400 when the cursor is not one of that
    /// list, or not alone.
    pub fn resolve<K: CursorKey>(self, list: impl Into<List>) -> Result<Slice<K>> {
        let (list, order) = (list.into(), self.order.direction());
        let (cursor, scan) = match (self.after, self.before) {
            (Some(_), Some(_)) => {
                return Err(Error::Refused("Send either after or before, not both".into()));
            }
            (Some(after), None) => (Some(after), Direction::Ascending),
            (None, Some(before)) => (Some(before), Direction::Descending),
            (None, None) => (None, order),
        };
        if cursor.is_some() && self.skip.is_some() {
            return Err(Error::Refused("Send either a cursor or skip, not both".into()));
        }
        let bound = cursor.map(|cursor| list.position(&cursor)).transpose()?;
        let (skip, limit) = (self.skip.unwrap_or(0), self.limit);
        Ok(Slice { list, bound, scan, order, skip, limit, target: self.target })
    }
}

impl<O: Order> IntoParams for Window<O> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let parameter = |name: &str, text: &str, schema: ObjectBuilder| {
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query);
            parameter.description(Some(text)).schema(Some(schema.build())).build()
        };
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let cursor = || text().max_length(Some(MAX_LENGTH));
        let number = || {
            let int64 = SchemaFormat::KnownFormat(KnownFormat::Int64);
            ObjectBuilder::new().schema_type(Type::Integer).format(Some(int64))
        };
        let default = O::WORDS.iter().find(|(_, order)| *order == O::DEFAULT);
        let order = text()
            .enum_values(Some(O::WORDS.iter().map(|(word, _)| *word)))
            .default(default.map(|(word, _)| (*word).into()));
        let limit = number()
            .minimum(Some(*LIMITS.start()))
            .maximum(Some(*LIMITS.end()))
            .default(Some(DEFAULT_LIMIT.into()));
        vec![
            // Without a default: a client that sends those would send it together with a cursor.
            parameter(
                "skip",
                "Entries to leave out from the start; not together with a cursor.",
                number().minimum(Some(0)),
            ),
            parameter("limit", "Most entries to give.", limit),
            parameter(
                "after",
                "A cursor, as in `Link`: the entries nearest to it that are newer.",
                cursor(),
            ),
            parameter(
                "before",
                "A cursor, as in `Link`: the entries nearest to it that are older.",
                cursor(),
            ),
            parameter(
                "order",
                "The order in which the entries are shown. Which they are beside a cursor does not depend on it.",
                order,
            ),
        ]
    }
}
