//! Streams responses with conversations that are too large to build in memory.

use super::model::Conversation;
use super::repository::{self, MeasuredConversation, ReadLimit, Selection};
use super::service::assembly::{EMBEDDED_BYTES, complete};
use super::service::commit::NOT_FOUND;
use super::service::parts::Parts;
use super::stream::append;
use crate::core::error::{Error, Result};
use crate::db::Db;
use crate::http::{Direction, RawJson};
use crate::security::Visibility;
use axum::body::{Body, Bytes};
use futures_util::stream;
use std::collections::VecDeque;

/// Approximate bytes of conversations read in one statement; a larger one is read in parts.
const GROUP_BYTES: i64 = 256 * 1024;
/// Maximum number of conversations read in one statement.
const GROUP_SIZE: usize = 50;

/// The state of a streamed response.
pub(super) struct ConversationStream {
    db: Db,
    visibility: Visibility,
    /// Maximum number of newest messages per conversation.
    each: i64,
    /// Bytes left for participants and messages.
    room: usize,
    is_list: bool,
    has_entries: bool,
    /// The ids of conversations not read yet.
    groups: VecDeque<Vec<i64>>,
    open: Option<OpenConversation>,
    /// JSON that is not sent yet.
    text: Vec<u8>,
}

/// A conversation whose messages are being written.
struct OpenConversation {
    parts: Parts,
    has_messages: bool,
    /// JSON after the messages.
    end: String,
}

impl ConversationStream {
    /// Streams conversation `id` with its newest `each` messages. Fails with 404 if it is not
    /// visible.
    pub(super) async fn one(
        db: &Db,
        id: i64,
        visibility: Visibility,
        each: i64,
    ) -> Result<RawJson<Conversation<'static>>> {
        let mut large = Self::new(db, visibility, each, vec![vec![id]]);
        large.read().await?;
        if large.text.is_empty() {
            return Err(NOT_FOUND);
        }
        Ok(RawJson::streamed(large.into_body()))
    }

    /// Streams the conversations of a `page`, each with its newest `each` messages.
    pub(super) async fn list(
        db: &Db,
        page: &[MeasuredConversation],
        visibility: Visibility,
        each: i64,
    ) -> Result<RawJson<Vec<Conversation<'static>>>> {
        let mut large = Self::new(db, visibility, each, groups(page));
        (large.is_list, large.text) = (true, vec![b'[']);
        large.read().await?;
        Ok(RawJson::streamed(large.into_body()))
    }

    fn new(db: &Db, visibility: Visibility, each: i64, groups: Vec<Vec<i64>>) -> Self {
        Self {
            db: db.clone(),
            visibility,
            each,
            room: EMBEDDED_BYTES,
            is_list: false,
            has_entries: false,
            groups: groups.into(),
            open: None,
            text: vec![],
        }
    }

    /// The response body. If a read fails, the body ends early and the client sees it is
    /// incomplete.
    fn into_body(self) -> Body {
        Body::from_stream(stream::try_unfold(Some(self), async |large| match large {
            Some(large) => large.next().await.map(Some),
            None => Ok::<_, Error>(None),
        }))
    }

    /// The next chunk, and the state after it; `None` after the last chunk.
    async fn next(mut self) -> Result<(Bytes, Option<Self>)> {
        while self.text.is_empty() && !self.is_done() {
            self.read().await?;
        }
        if self.is_done() {
            if self.is_list {
                self.text.push(b']');
            }
            return Ok((self.text.into(), None));
        }
        let text = std::mem::take(&mut self.text);
        Ok((text.into(), Some(self)))
    }

    fn is_done(&self) -> bool {
        self.open.is_none() && self.groups.is_empty()
    }

    async fn read(&mut self) -> Result<()> {
        if self.open.is_some() {
            return self.read_messages().await;
        }
        let Some(group) = self.groups.pop_front() else { return Ok(()) };
        match *group {
            [id] => self.open(id).await,
            _ => self.read_group(group).await,
        }
    }

    /// Writes the conversations with these `ids`. One that is no longer visible is skipped.
    async fn read_group(&mut self, ids: Vec<i64>) -> Result<()> {
        let room = ReadLimit { each: self.each, bytes: Some(2 * GROUP_BYTES) };
        let selection = Selection::Ids(&ids, self.visibility);
        let Some(mut found) = repository::find(&self.db, selection, self.visibility, room).await?
        else {
            // They grew since they were measured; read them one by one.
            ids.into_iter().rev().for_each(|id| self.groups.push_front(vec![id]));
            return Ok(());
        };
        let mut rows = std::mem::take(&mut found.conversations);
        rows.sort_by_key(|row| ids.iter().position(|id| *id == row.id));
        let embedded = found.embedded()?;
        let conversations = complete(rows, &embedded, &mut self.room);
        if !conversations.is_empty() {
            self.begin_entry();
        }
        append(&mut self.text, &conversations)
    }

    /// Writes conversation `id` up to its messages.
    async fn open(&mut self, id: i64) -> Result<()> {
        let room = ReadLimit { each: 0, bytes: None };
        let selection = Selection::Ids(&[id], self.visibility);
        let found = repository::find(&self.db, selection, self.visibility, room).await?;
        let Some(mut found) = found else { return Ok(()) };
        let rows = std::mem::take(&mut found.conversations);
        let embedded = found.embedded()?;
        let Some(mut conversation) = complete(rows, &embedded, &mut self.room).pop() else {
            return Ok(());
        };
        let last = conversation.message_count;
        let first = self.first_message(id, last).await?;
        conversation.messages_truncated = first > 1;
        self.begin_entry();
        append(&mut self.text, &[conversation])?;
        if first <= last {
            let end = format!("],\"messages_truncated\":{}}}", first > 1);
            self.text.truncate(self.text.len() - end.len());
            let (db, order) = (self.db.clone(), Direction::Ascending);
            let parts = Parts::new(db, id, self.visibility, first, last, order);
            self.open = Some(OpenConversation { parts, has_messages: false, end });
        }
        Ok(())
    }

    /// Finds the `seq` of the first message to include of conversation `id`, whose newest is
    /// `last`. Subtracts their size from the room. If a message does not fit, no older message and
    /// no message of a later conversation is included.
    async fn first_message(&mut self, id: i64, last: i64) -> Result<i64> {
        let room = i64::try_from(self.room).unwrap_or(i64::MAX);
        let found = repository::first_that_fits(&self.db, id, last, self.each, room).await?;
        let (first, bytes) = found.unwrap_or((last + 1, 0));
        let are_all_shown = first <= 1.max(last - self.each + 1);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.room = if are_all_shown { self.room.saturating_sub(bytes) } else { 0 };
        Ok(first)
    }

    async fn read_messages(&mut self) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let messages = open.parts.next().await?;
        if open.has_messages {
            self.text.push(b',');
        }
        open.has_messages = true;
        append(&mut self.text, &messages)?;
        if open.parts.is_empty() {
            self.text.extend_from_slice(open.end.as_bytes());
            self.open = None;
        }
        Ok(())
    }

    fn begin_entry(&mut self) {
        if self.has_entries {
            self.text.push(b',');
        }
        self.has_entries = true;
    }
}

/// Splits the conversations of a `page` into groups that are read in one statement each.
fn groups(page: &[MeasuredConversation]) -> Vec<Vec<i64>> {
    let (mut groups, mut bytes): (Vec<Vec<i64>>, i64) = (vec![], 0);
    for one in page {
        bytes += one.bytes;
        match groups.last_mut() {
            Some(group) if bytes <= GROUP_BYTES && group.len() < GROUP_SIZE => group.push(one.id),
            _ => {
                bytes = one.bytes;
                groups.push(vec![one.id]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::stored_time::StoredTime;

    #[test]
    fn conversations_are_read_together_up_to_a_size_and_a_number() {
        let page = |sizes: &[i64]| -> Vec<MeasuredConversation> {
            let one = |(id, bytes): (i64, &i64)| MeasuredConversation {
                id,
                active_at: StoredTime(chrono::DateTime::UNIX_EPOCH),
                bytes: *bytes,
            };
            (1..).zip(sizes).map(one).collect()
        };
        let (half, more) = (GROUP_BYTES / 2, GROUP_BYTES / 2 + 1);
        assert_eq!(groups(&page(&[half, half, half])), [vec![1, 2], vec![3]]);
        assert_eq!(groups(&page(&[more, more])), [[1], [2]]);
        assert_eq!(groups(&page(&[1, 10 * GROUP_BYTES, 1, 1])), [vec![1], vec![2], vec![3, 4]]);
        assert_eq!(groups(&page(&[1; 120])).iter().map(Vec::len).collect::<Vec<_>>(), [50, 50, 20]);
        assert!(groups(&[]).is_empty());
    }
}
