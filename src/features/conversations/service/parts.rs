//! Reads long lists of messages in parts.

use super::commit::NOT_FOUND;
use crate::core::error::{Error, Result};
use crate::db::Db;
use crate::features::conversations::model::Message;
use crate::features::conversations::repository::messages;
use crate::http::Direction;
use crate::security::Visibility;

/// Reads messages of a conversation in parts, which bounds the memory of one request.
#[derive(Debug)]
pub struct Parts {
    db: Db,
    conversation_id: i64,
    visibility: Visibility,
    /// Smallest and largest `seq` not read yet.
    left: (i64, i64),
    order: Direction,
}

impl Parts {
    /// Maximum number of messages per part.
    const PART_SIZE: i64 = 50;

    /// For messages with `seq` from `first` to `last`, in `order`.
    pub fn new(
        db: Db,
        conversation_id: i64,
        visibility: Visibility,
        first: i64,
        last: i64,
        order: Direction,
    ) -> Self {
        Self { db, conversation_id, visibility, left: (first, last), order }
    }

    /// For messages with these `seq` values, which are consecutive, ascending or descending.
    pub fn of_numbers(
        db: Db,
        conversation_id: i64,
        visibility: Visibility,
        numbers: &[i64],
    ) -> Self {
        let (first, last) = match numbers {
            [first, .., last] => (*first, *last),
            [one] => (*one, *one),
            [] => (1, 0),
        };
        let is_descending = numbers.len() > 1 && first > last;
        let order = if is_descending { Direction::Descending } else { Direction::Ascending };
        let (first, last) = if is_descending { (last, first) } else { (first, last) };
        Self::new(db, conversation_id, visibility, first, last, order)
    }

    /// Returns whether all parts are read.
    pub fn is_empty(&self) -> bool {
        self.left.0 > self.left.1
    }

    /// Reads the next part; empty after the last. Fails with 404 if the conversation is no longer
    /// visible.
    pub async fn next(&mut self) -> Result<Vec<Message<'static>>> {
        if self.is_empty() {
            return Ok(vec![]);
        }
        let (first, last) = self.left;
        let (from, to) = match self.order {
            Direction::Ascending => (first, last.min(first + Self::PART_SIZE - 1)),
            Direction::Descending => (first.max(last - Self::PART_SIZE + 1), last),
        };
        let (id, visibility) = (self.conversation_id, self.visibility);
        let found = messages::part(&self.db, id, visibility, from, to, self.order).await?;
        let (Some(one), Some(other)) = (found.first(), found.last()) else {
            return Err(NOT_FOUND);
        };
        let (read_first, read_last) = (one.seq.min(other.seq), one.seq.max(other.seq));
        if i64::try_from(found.len()) != Ok(read_last - read_first + 1) {
            return Err(Error::Internal("the sequence of messages has a gap".into()));
        }
        self.left = match self.order {
            Direction::Ascending => (read_last + 1, last),
            Direction::Descending => (first, read_first - 1),
        };
        Ok(found)
    }
}
