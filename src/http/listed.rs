//! A part of a list as the database gives it, and as an answer, with links to the parts beside it.

use super::JsonList;
use super::cursor::{CursorKey, List};
use super::page::Direction;
use crate::db::Query;
use axum::http::HeaderValue;
use axum::http::header::LINK;
use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
use serde::Serialize;
use std::convert::Infallible;

/// The parameters that say where a page is.
const PLACE: [&str; 3] = ["skip", "after", "before"];

/// What a request asked for, so that a link can ask for the same elsewhere in the list.
#[derive(Debug)]
pub(super) struct Target {
    pub path: String,
    pub pairs: Vec<(String, String)>,
}

impl Target {
    /// The same at another place in the list, which the parameter `name` says.
    fn beside(&self, name: &str, place: &str) -> String {
        let kept = self.pairs.iter().filter(|(name, _)| !PLACE.contains(&name.as_str()));
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(kept).append_pair(name, place);
        format!("{}?{}", self.path, query.finish())
    }
}

/// A part of a list that is sorted by `K`.
#[derive(Debug)]
pub struct Slice<K> {
    pub(super) list: List,
    /// Where it begins, that entry not included.
    pub(super) bound: Option<K>,
    /// In which direction it goes on from there.
    pub(super) scan: Direction,
    /// In which direction it is shown.
    pub(super) order: Direction,
    pub(super) skip: i64,
    pub(super) limit: i64,
    pub(super) target: Option<Target>,
}

/// The entries of a page, in the order in which they are shown. Answers with them as JSON.
#[derive(Debug)]
pub struct Listed<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Where the list goes on.
    pub link: Link,
}

/// The `Link` of an answer (RFC 8288), if the list goes on.
#[derive(Clone, Debug)]
pub struct Link(Option<HeaderValue>);

impl<K: CursorKey> Slice<K> {
    /// In which direction the database reads it: from the cursor on.
    pub fn scan(&self) -> Direction {
        self.scan
    }

    /// In which direction it is shown.
    pub fn order(&self) -> Direction {
        self.order
    }

    /// Appends to `statement`, which ends in a condition, what confines it to this part: the bound,
    /// the order and the limit. `columns` are those that `K` is made of. The rows come from the
    /// cursor on, and there is one more of them than the page has, if the list goes on.
    pub fn cut<'c>(&self, mut statement: Query<'c>, columns: &[&'static str]) -> Query<'c> {
        let (comparison, direction) = match self.scan {
            Direction::Ascending => (") > (", ""),
            Direction::Descending => (") < (", " DESC"),
        };
        if let Some(bound) = self.bound {
            statement = statement.push(" AND ");
            for (n, column) in columns.iter().enumerate() {
                statement = statement.push(if n == 0 { "(" } else { ", " }).push(column);
            }
            statement = bound.push_bind(statement.push(comparison)).push(")");
        }
        for (n, column) in columns.iter().enumerate() {
            statement = statement.push(if n == 0 { " ORDER BY " } else { ", " });
            statement = statement.push(column).push(direction);
        }
        statement = statement.push(" LIMIT ").push_bind(self.limit + 1);
        statement.push(" OFFSET ").push_bind(self.skip)
    }

    /// The page that `rows` make, which a statement of [`cut`](Self::cut) gave.
    pub fn page<T>(self, mut rows: Vec<T>, key: impl Fn(&T) -> K) -> Listed<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let goes_on = rows.len() > limit;
        rows.truncate(limit);
        // There may be nothing left on that side; only another statement could tell.
        let has_other_side = self.bound.is_some() || self.skip > 0;
        let (has_next, has_prev) = if self.scan == self.order {
            (goes_on, has_other_side)
        } else {
            rows.reverse();
            (has_other_side, goes_on)
        };
        let (next, prev) = match self.order {
            Direction::Ascending => ("after", "before"),
            Direction::Descending => ("before", "after"),
        };
        let mut links = vec![];
        if let (Some(target), [first, ..], [.., last]) = (&self.target, &*rows, &*rows) {
            for (exists, rel, side, entry) in
                [(has_next, "next", next, last), (has_prev, "prev", prev, first)]
            {
                if exists {
                    let target = target.beside(side, &self.list.cursor(key(entry)));
                    links.push(format!("<{target}>; rel=\"{rel}\""));
                }
            }
        }
        Listed { entries: rows, link: Link::of(&links) }
    }
}

/// A part of a list without cursors, as its entries have no place of their own.
#[derive(Debug)]
pub struct Part {
    /// Entries to leave out from the start.
    pub skip: i64,
    /// Most entries to give.
    pub limit: i64,
    /// Most entries that can be left out.
    pub(super) max_skip: i64,
    pub(super) target: Target,
}

impl Part {
    /// The page that `rows` make, of which there is one more than the page has, if the list goes on.
    pub fn page<T>(self, mut rows: Vec<T>) -> Listed<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let goes_on = rows.len() > limit && self.skip + self.limit <= self.max_skip;
        rows.truncate(limit);
        let next = goes_on.then(|| ("next", self.skip + self.limit));
        let prev = (self.skip > 0).then(|| ("prev", (self.skip - self.limit).max(0)));
        let link = |(rel, skip): (&str, i64)| {
            format!("<{}>; rel=\"{rel}\"", self.target.beside("skip", &skip.to_string()))
        };
        let links: Vec<String> = next.into_iter().chain(prev).map(link).collect();
        Listed { entries: rows, link: Link::of(&links) }
    }
}

impl Link {
    fn of(links: &[String]) -> Self {
        Self(HeaderValue::try_from(links.join(", ")).ok().filter(|value| !value.is_empty()))
    }
}

/// Lists of things that are numbered 1, 2, 3 … without gaps.
impl Slice<i64> {
    /// The numbers on this page, where `last` is the greatest: no entry need be read to leave it
    /// out.
    pub fn numbers(self, last: i64) -> Listed<i64> {
        let skip = self.skip;
        let rows = usize::try_from(self.limit).unwrap_or(usize::MAX).saturating_add(1);
        let numbers: Vec<i64> = match self.scan {
            Direction::Ascending => {
                let first = self.bound.unwrap_or(0).max(0).saturating_add(skip).saturating_add(1);
                (first..=last).take(rows).collect()
            }
            Direction::Descending => {
                let from = self.bound.map_or(last, |bound| last.min(bound.saturating_sub(1)));
                (1..=from.saturating_sub(skip)).rev().take(rows).collect()
            }
        };
        self.page(numbers, |number| *number)
    }
}

impl IntoResponseParts for Link {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        if let Some(value) = self.0 {
            parts.headers_mut().insert(LINK, value);
        }
        Ok(parts)
    }
}

impl<T: Serialize + Send + 'static> IntoResponse for Listed<T> {
    fn into_response(self) -> Response {
        (self.link, JsonList(self.entries)).into_response()
    }
}
