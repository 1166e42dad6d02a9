//! The pagination parameters of list requests.

use super::cursor::{CursorKey, List, MAX_LENGTH};
use super::link::RequestTarget;
use super::order::{Direction, Order};
use super::slice::Slice;
use crate::core::error::{Error, Result};
use crate::http::extract::query::{FromQuery, QueryPairs};
use std::ops::RangeInclusive;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

const LIMITS: RangeInclusive<i64> = 1..=1000;
const DEFAULT_LIMIT: i64 = 100;

/// Pagination by offset, for internal callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Number of entries to skip.
    pub skip: i64,
    /// Maximum number of entries to return.
    pub limit: i64,
}

/// A page request: pagination by offset or by cursor, and the sort order.
#[derive(Debug)]
pub struct Window<O> {
    /// The order of the entries within the page. It does not affect which side of a cursor the page
    /// is on.
    pub order: O,
    skip: Option<i64>,
    limit: i64,
    after: Option<String>,
    before: Option<String>,
    /// The path and query of the request, for links; `None` means no links.
    target: Option<RequestTarget>,
}

impl<O: Order> FromQuery for Window<O> {
    fn from_query(query: &mut QueryPairs) -> Self {
        let find = |text: &str| O::WORDS.iter().find(|(value, _)| *value == text);
        let order =
            query.one_of("order", &order_values::<O>(), |text| find(text).map(|(_, order)| *order));
        Self {
            order: order.unwrap_or(O::DEFAULT),
            skip: query.integer("skip", 0..=i64::MAX),
            limit: query.integer("limit", LIMITS).unwrap_or(DEFAULT_LIMIT),
            after: query.get("after"),
            before: query.get("before"),
            target: Some(RequestTarget::of(query)),
        }
    }
}

/// The allowed values of `order`, listed the way pydantic lists them.
fn order_values<O: Order>() -> String {
    let mut text = String::new();
    for (n, (value, _)) in O::WORDS.iter().enumerate() {
        let between = match n {
            0 => "",
            _ if n + 1 == O::WORDS.len() => " or ",
            _ => ", ",
        };
        text = format!("{text}{between}'{value}'");
    }
    text
}

/// A page for internal callers, without links.
impl<O: Order> From<Page> for Window<O> {
    fn from(page: Page) -> Self {
        let (skip, limit) = (Some(page.skip), page.limit);
        Self { order: O::DEFAULT, skip, limit, after: None, before: None, target: None }
    }
}

impl<O: Order> Window<O> {
    /// Returns the slice of `list`, which is sorted by `K`, that this window selects. Fails with
    /// 400 when the cursor belongs to another list, or when `after`, `before` and `skip` are
    /// combined.
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
            .enum_values(Some(O::WORDS.iter().map(|(value, _)| *value)))
            .default(default.map(|(value, _)| (*value).into()));
        let limit = number()
            .minimum(Some(*LIMITS.start()))
            .maximum(Some(*LIMITS.end()))
            .default(Some(DEFAULT_LIMIT.into()));
        vec![
            // No default: a generated client that sends defaults would send `skip` with a cursor.
            parameter(
                "skip",
                "Number of entries to skip. Cannot be combined with a cursor.",
                number().minimum(Some(0)),
            ),
            parameter("limit", "Maximum number of entries to return.", limit),
            parameter(
                "after",
                "Cursor from a `Link` header. Returns the next newer entries.",
                cursor(),
            ),
            parameter(
                "before",
                "Cursor from a `Link` header. Returns the next older entries.",
                cursor(),
            ),
            parameter(
                "order",
                "Order of the entries in the page. `after` and `before` do not depend on it.",
                order,
            ),
        ]
    }
}
