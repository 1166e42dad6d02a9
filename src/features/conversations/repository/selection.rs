//! The conversations that a statement reads, and their order.

use crate::core::stored_time::StoredTime;
use crate::http::{Direction, ListPage, Slice};
use crate::security::Visibility;

/// The conversations to read.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'s> {
    /// A page of all conversations, or of those in which user `of_user` is a participant.
    Page { of_user: Option<i64>, slice: &'s ConversationSlice },
    /// The visible conversations among these ids.
    Ids(&'s [i64], Visibility),
}

/// A page of a list of conversations, by sort key.
#[derive(Debug)]
pub enum ConversationSlice {
    /// Sorted by id.
    ById(Slice<i64>),
    /// Sorted by the time of the newest message, then by id.
    Recent(Slice<(StoredTime, i64)>),
}

impl ConversationSlice {
    /// Sorts `rows` in the scan order of the page.
    pub(super) fn sort<P: Placed>(&self, rows: &mut [P]) {
        let scan = match self {
            Self::ById(slice) => {
                rows.sort_unstable_by_key(|row| row.place().1);
                slice.scan()
            }
            Self::Recent(slice) => {
                rows.sort_unstable_by_key(P::place);
                slice.scan()
            }
        };
        if scan == Direction::Descending {
            rows.reverse();
        }
    }

    /// Builds the page from `rows` returned by `find` or `measure`.
    pub fn page<P: Placed>(self, rows: Vec<P>) -> ListPage<P> {
        match self {
            Self::ById(slice) => slice.page(rows, |row| row.place().1),
            Self::Recent(slice) => slice.page(rows, P::place),
        }
    }
}

/// A row with the sort keys of a list of conversations.
pub trait Placed {
    /// The time of the last activity and the id of the conversation.
    fn place(&self) -> (StoredTime, i64);
}
