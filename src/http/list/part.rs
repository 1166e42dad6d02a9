//! Pages of lists without cursors.

use super::link::{Link, RequestTarget};
use super::page::ListPage;
use crate::http::extract::query::{FromQuery, QueryPairs};
use utoipa::IntoParams;

const MAX_SKIP: i64 = 10_000;
const MAX_LIMIT: i64 = 100;
const DEFAULT_LIMIT: i64 = 20;

/// A page of search results: at most 100, from the first 10,000. Results have no stable position, so
/// their list has no cursors.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Part {
    /// Number of results to skip.
    #[param(minimum = 0, maximum = 10000, default = 0, required = false)]
    pub skip: i64,
    /// Maximum number of results to return.
    #[param(minimum = 1, maximum = 100, default = 20, required = false)]
    pub limit: i64,
    #[param(ignore)]
    target: RequestTarget,
}

impl FromQuery for Part {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self {
            skip: query.integer("skip", 0..=MAX_SKIP).unwrap_or(0),
            limit: query.integer("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT),
            target: RequestTarget::of(query),
        }
    }
}

impl Part {
    /// Builds the page from `rows`, which has one row more than the page if there are more entries.
    pub fn page<T>(self, mut rows: Vec<T>) -> ListPage<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit && self.skip + self.limit <= MAX_SKIP;
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
