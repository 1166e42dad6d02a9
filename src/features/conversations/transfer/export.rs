//! Exports: lines that are written while they are read, so that the size of a conversation is no
//! matter of memory, and a client that reads slowly keeps no connection to the database.

use super::model::Exported;
use super::repository;
use crate::audit::{Action, Origin};
use crate::core::error::{Error, Result};
use crate::db::Db;
use crate::security::Reach;
use crate::state::AppState;
use axum::body::{Body, Bytes};
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;
use std::collections::VecDeque;

/// Messages read at once, and about their bytes; the longest take a mebibyte each.
const MESSAGES: (i64, i64) = (50, 256 * 1024);
/// Ids of conversations read at once.
const CONVERSATIONS: i64 = 200;
/// Participants in one line, which has at most a mebibyte.
const PARTICIPANTS: usize = 1000;
/// What is written at once, at least.
const CHUNK_BYTES: usize = 32 * 1024;

/// What is still to be written.
pub struct Export {
    db: Db,
    reach: Reach,
    /// Lines that wait.
    text: Vec<u8>,
    open: Option<Open>,
    waiting: VecDeque<i64>,
    /// Whose conversations follow those that wait, and the last that was read of them.
    of_user: Option<(i64, i64)>,
}

/// A conversation whose messages are being written.
struct Open {
    id: i64,
    /// The message that was written last.
    written: i64,
    /// The last one to be written: those that come later are no part of the export.
    last: i64,
}

/// Records that a key exports something, before the first line is sent.
pub async fn record_export(app: &AppState, by: Option<&Origin>, details: &Value) -> Result<()> {
    if by.is_none() {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    app.audit.record_of_key(&mut tx, by, Action::Export, details, app.clock.now()).await?;
    Ok(tx.commit().await?)
}

impl Export {
    /// Conversation `id`.
    pub async fn of_conversation(db: Db, reach: Reach, id: i64) -> Result<Self> {
        let mut export = Self::new(db, reach);
        if !export.begin(id).await? {
            return Err(Error::NotFound("Conversation"));
        }
        Ok(export)
    }

    /// User `user_id` and all conversations they take part in.
    pub async fn of_user(db: Db, reach: Reach, user_id: i64) -> Result<Self> {
        let mut export = Self::new(db, reach);
        let user = repository::user(&export.db, user_id).await?;
        let user = user.ok_or(Error::NotFound("User"))?;
        export.write(&Exported::User(user))?;
        export.of_user = Some((user_id, 0));
        Ok(export)
    }

    fn new(db: Db, reach: Reach) -> Self {
        Self { db, reach, text: vec![], open: None, waiting: VecDeque::new(), of_user: None }
    }

    /// The lines. When some cannot be read any more, the body breaks off, which a client notices.
    pub fn into_body(self) -> Body {
        Body::from_stream(stream::try_unfold(Some(self), async |export| match export {
            Some(export) => export.next().await,
            None => Ok(None),
        }))
    }

    /// The next lines, and what comes after them.
    async fn next(mut self) -> Result<Option<(Bytes, Option<Self>)>> {
        while self.text.len() < CHUNK_BYTES {
            if self.open.is_some() {
                self.write_messages().await?;
            } else if let Some(id) = self.waiting.pop_front() {
                // One that is not found has been left or removed meanwhile.
                self.begin(id).await?;
            } else if !self.look_further().await? {
                let text = std::mem::take(&mut self.text);
                return Ok((!text.is_empty()).then(|| (text.into(), None)));
            }
        }
        let text = std::mem::take(&mut self.text);
        Ok(Some((text.into(), Some(self))))
    }

    /// Writes the line of conversation `id`, unless it is out of reach.
    async fn begin(&mut self, id: i64) -> Result<bool> {
        let mut snapshot = self.db.snapshot().await?;
        let found = repository::conversation(&mut snapshot, id, self.reach).await?;
        drop(snapshot);
        let Some(mut conversation) = found else { return Ok(false) };
        self.open = Some(Open { id, written: 0, last: conversation.message_count });
        let first = conversation.participants.len().min(PARTICIPANTS);
        let others = conversation.participants.split_off(first);
        self.write(&Exported::Conversation(conversation))?;
        for participants in others.chunks(PARTICIPANTS) {
            self.write(&Exported::Participants { participants: participants.to_vec() })?;
        }
        Ok(true)
    }

    /// Writes the next messages of the conversation that is open, and closes it after the last.
    async fn write_messages(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let range = (open.written, open.last);
        if open.written >= open.last {
            return Ok(());
        }
        let messages = repository::messages(&self.db, open.id, self.reach, range, MESSAGES).await?;
        if messages.is_empty() {
            // A shorter conversation must not look like a whole one.
            return Err(Error::NotFound("Conversation"));
        }
        let written = open.written + i64::try_from(messages.len()).unwrap_or(i64::MAX);
        for message in messages {
            let before = self.text.len() / CHUNK_BYTES;
            self.write(&Exported::Message(message))?;
            if self.text.len() / CHUNK_BYTES > before {
                // Writing all fifty takes long where each has a megabyte.
                tokio::task::yield_now().await;
            }
        }
        if written < open.last {
            self.open = Some(Open { written, ..open });
        }
        Ok(())
    }

    /// Whether more conversations wait now.
    async fn look_further(&mut self) -> Result<bool> {
        let Some((user_id, last)) = self.of_user else { return Ok(false) };
        let ids = repository::ids_of_user(&self.db, user_id, last, CONVERSATIONS).await?;
        self.of_user = ids.last().map(|last| (user_id, *last));
        self.waiting = ids.into();
        Ok(!self.waiting.is_empty())
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.text, line)
            .map_err(|error| Error::Internal(error.to_string().into()))?;
        self.text.push(b'\n');
        Ok(())
    }
}
