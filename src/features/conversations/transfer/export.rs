//! Streams exports. Memory does not grow with the size of a conversation, and a slow client does
//! not hold a database connection.

use super::model::Exported;
use super::repository;
use crate::audit::{Action, Origin};
use crate::core::error::{Error, Result};
use crate::db::Db;
use crate::security::Visibility;
use crate::state::AppState;
use axum::body::{Body, Bytes};
use axum::http::Method;
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;
use std::collections::VecDeque;

/// Maximum number of messages read per statement.
const MESSAGES: i64 = 50;
/// Approximate bytes of messages read per statement. A single message can have 1 MiB.
const MESSAGES_BYTES: i64 = 256 * 1024;
/// Maximum number of conversation ids read per statement.
const CONVERSATIONS: i64 = 200;
/// Maximum number of participants in one line, which has at most 4 MiB.
const PARTICIPANTS: usize = 1000;
/// Minimum size of a chunk of the body, in bytes.
const CHUNK_BYTES: usize = 32 * 1024;

/// The state of an export.
pub struct Export {
    db: Db,
    visibility: Visibility,
    /// Lines that are not sent yet.
    text: Vec<u8>,
    open: Option<Open>,
    pending: VecDeque<i64>,
    /// The user whose conversations follow those in `pending`, and the last conversation id read.
    of_user: Option<(i64, i64)>,
}

/// A conversation whose messages are being written.
struct Open {
    id: i64,
    /// `seq` of the last message written.
    written: i64,
    /// `seq` of the last message to write. Later messages are not part of the export.
    last: i64,
}

/// Records an export by an API key in the audit log, before the first line is sent. A HEAD exports
/// nothing, so it is not recorded.
pub async fn record_export(
    app: &AppState,
    method: &Method,
    by: Option<&Origin>,
    details: &Value,
) -> Result<()> {
    if by.is_none() || method == Method::HEAD {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    app.audit.record_of_key(&mut tx, by, Action::Export, details, app.clock.now()).await?;
    Ok(tx.commit().await?)
}

impl Export {
    /// Begins an export of conversation `id`. Fails with 404 if it is not visible.
    pub async fn of_conversation(db: Db, visibility: Visibility, id: i64) -> Result<Self> {
        let mut export = Self::new(db, visibility);
        if !export.begin(id).await? {
            return Err(Error::NotFound("Conversation"));
        }
        Ok(export)
    }

    /// Begins an export of user `user_id` and their conversations. Fails with 404 if there is no
    /// such user.
    pub async fn of_user(db: Db, visibility: Visibility, user_id: i64) -> Result<Self> {
        let mut export = Self::new(db, visibility);
        let user = repository::user(&export.db, user_id).await?;
        let user = user.ok_or(Error::NotFound("User"))?;
        export.write(&Exported::User(user))?;
        export.of_user = Some((user_id, 0));
        Ok(export)
    }

    fn new(db: Db, visibility: Visibility) -> Self {
        Self { db, visibility, text: vec![], open: None, pending: VecDeque::new(), of_user: None }
    }

    /// The response body. If a read fails, the body ends early and the client sees it is
    /// incomplete.
    pub fn into_body(self) -> Body {
        Body::from_stream(stream::try_unfold(Some(self), async |export| match export {
            Some(export) => export.next().await,
            None => Ok(None),
        }))
    }

    /// The next chunk, and the state after it; `None` at the end.
    async fn next(mut self) -> Result<Option<(Bytes, Option<Self>)>> {
        while self.text.len() < CHUNK_BYTES {
            if self.open.is_some() {
                self.write_messages().await?;
            } else if let Some(id) = self.pending.pop_front() {
                // A conversation that is no longer visible is skipped.
                self.begin(id).await?;
            } else if !self.read_conversation_ids().await? {
                let text = std::mem::take(&mut self.text);
                return Ok((!text.is_empty()).then(|| (text.into(), None)));
            }
        }
        let text = std::mem::take(&mut self.text);
        Ok(Some((text.into(), Some(self))))
    }

    /// Writes the line of conversation `id`. Returns `false` if it is not visible.
    async fn begin(&mut self, id: i64) -> Result<bool> {
        let mut snapshot = self.db.snapshot().await?;
        let found = repository::conversation(&mut snapshot, id, self.visibility).await?;
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

    /// Writes the next messages of the open conversation, and closes it after the last one.
    async fn write_messages(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.written >= open.last {
            return Ok(());
        }
        let messages = repository::messages(
            &self.db,
            open.id,
            self.visibility,
            open.written,
            open.last,
            MESSAGES,
            MESSAGES_BYTES,
        )
        .await?;
        if messages.is_empty() {
            // Fail, so that an incomplete conversation does not look complete.
            return Err(Error::NotFound("Conversation"));
        }
        let written = open.written + i64::try_from(messages.len()).unwrap_or(i64::MAX);
        for message in messages {
            let before = self.text.len() / CHUNK_BYTES;
            self.write(&Exported::Message(message))?;
            if self.text.len() / CHUNK_BYTES > before {
                // Serializing 50 messages of 1 MiB each would block the thread for too long.
                tokio::task::yield_now().await;
            }
        }
        if written < open.last {
            self.open = Some(Open { written, ..open });
        }
        Ok(())
    }

    /// Reads the next conversation ids of the user. Returns whether there are any.
    async fn read_conversation_ids(&mut self) -> Result<bool> {
        let Some((user_id, last)) = self.of_user else { return Ok(false) };
        let ids = repository::ids_of_user(&self.db, user_id, last, CONVERSATIONS).await?;
        self.of_user = ids.last().map(|last| (user_id, *last));
        self.pending = ids.into();
        Ok(!self.pending.is_empty())
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.text, line)
            .map_err(|error| Error::Internal(error.to_string().into()))?;
        self.text.push(b'\n');
        Ok(())
    }
}
