//! A slice of a sorted list: the SQL that selects its rows, and the page made of them.
//!
//! Together with `CursorKey::push_bind`, [`Slice::cut`] is the only SQL of `http` outside
//! repositories. It completes the statement of a repository.

use super::cursor::{CursorKey, List};
use super::link::{Link, RequestTarget};
use super::order::Direction;
use super::page::ListPage;
use crate::db::Query;

/// A slice of a list that is sorted by `K`.
#[derive(Debug)]
pub struct Slice<K> {
    pub(super) list: List,
    /// The exclusive start.
    pub(super) bound: Option<K>,
    /// The direction in which the database reads from `bound`.
    pub(super) scan: Direction,
    /// The order of the entries in the page.
    pub(super) order: Direction,
    pub(super) skip: i64,
    pub(super) limit: i64,
    pub(super) target: Option<RequestTarget>,
}

impl<K: CursorKey> Slice<K> {
    /// The direction in which the database reads from the cursor.
    pub fn scan(&self) -> Direction {
        self.scan
    }

    /// The order of the entries in the page.
    pub fn order(&self) -> Direction {
        self.order
    }

    /// Appends the bound, the order and the limit of this slice to `statement`, which must end in a
    /// condition. `columns` are the columns of `K`. The statement returns rows in scan order, and
    /// one row more than the page has if there are more entries.
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

    /// Builds the page from `rows`, the result of a statement that [`cut`](Self::cut) completed.
    pub fn page<T>(self, mut rows: Vec<T>, key: impl Fn(&T) -> K) -> ListPage<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        // An approximation: that page may be empty, but only another query could find out.
        let has_other_side = self.bound.is_some() || self.skip > 0;
        let (has_next, has_prev) = if self.scan == self.order {
            (has_more, has_other_side)
        } else {
            rows.reverse();
            (has_other_side, has_more)
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
        ListPage { entries: rows, link: Link::of(&links) }
    }
}

/// Lists whose entries are numbered 1, 2, 3 … without gaps.
impl Slice<i64> {
    /// The numbers on this page, where `last` is the greatest. Skipped entries are not read.
    pub fn numbers(self, last: i64) -> ListPage<i64> {
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
