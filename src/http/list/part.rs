//! Pages of lists without cursors.

use super::link::{Link, RequestTarget};
use super::page::ListPage;
use crate::http::extract::query::QueryPairs;
use std::ops::RangeInclusive;

/// A page of a list without cursors, whose entries have no stable position.
#[derive(Debug)]
pub struct Part {
    /// Number of entries to skip.
    pub skip: i64,
    /// Maximum number of entries to return.
    pub limit: i64,
    /// Maximum value of `skip`.
    max_skip: i64,
    target: RequestTarget,
}

impl Part {
    /// Parses the parameters `skip`, at most `max_skip`, and `limit`, in `limits`.
    pub fn read(
        query: &mut QueryPairs,
        max_skip: i64,
        limits: RangeInclusive<i64>,
        default_limit: i64,
    ) -> Self {
        Self {
            skip: query.integer("skip", 0..=max_skip).unwrap_or(0),
            limit: query.integer("limit", limits).unwrap_or(default_limit),
            max_skip,
            target: RequestTarget::of(query),
        }
    }

    /// Builds the page from `rows`, which has one row more than the page if there are more entries.
    pub fn page<T>(self, mut rows: Vec<T>) -> ListPage<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit && self.skip + self.limit <= self.max_skip;
        rows.truncate(limit);
        let next = has_more.then(|| ("next", self.skip + self.limit));
        let prev = (self.skip > 0).then(|| ("prev", (self.skip - self.limit).max(0)));
        let link = |(rel, skip): (&str, i64)| {
            format!("<{}>; rel=\"{rel}\"", self.target.beside("skip", &skip.to_string()))
        };
        let links: Vec<String> = next.into_iter().chain(prev).map(link).collect();
        ListPage { entries: rows, link: Link::of(&links) }
    }
}
