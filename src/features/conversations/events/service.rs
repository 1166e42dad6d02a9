//! Event stream and ticket operations.

use super::model::{EventData, EventText, Ticket};
use super::repository::{self, EventRow};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::db::Db;
use crate::features::conversations::model::{Message, Metadata};
use crate::features::conversations::repository as conversations;
use crate::features::conversations::service::commit::NOT_FOUND;
use crate::security::{Access, Visibility, ticket};
use crate::state::AppState;
use std::collections::HashMap;

/// Maximum number of events read in one batch.
const BATCH: usize = 100;
/// Maximum number of events removed in one transaction.
const MAX_REMOVED: i64 = 1000;
/// Maximum bytes of messages sent in one batch, unless a single message is larger.
const BATCH_BYTES: i64 = 256 * 1024;

/// A batch of events.
#[derive(Debug)]
pub struct EventBatch {
    /// The events as text.
    pub text: EventText,
    /// Id of the last event of the batch.
    pub last: i64,
    /// Whether there may be more events.
    pub more: bool,
}

/// The start position of a stream.
#[derive(Clone, Copy, Debug)]
pub struct StartPosition {
    /// Id of the event after which the stream starts.
    pub last: i64,
    /// Whether events that the client has not received were removed.
    pub missed: bool,
}

/// Determines where a stream starts: after the last event the client received, or after the newest
/// event. An id above the newest comes from before the database was restored from a backup; it is
/// lowered, because it would hide new events.
pub async fn begin(
    db: &Db,
    id: i64,
    visibility: Visibility,
    last_seen: Option<i64>,
) -> Result<StartPosition> {
    let range = repository::event_range(db, id, visibility).await?.ok_or(NOT_FOUND)?;
    let last = last_seen.map_or(range.newest, |last| last.min(range.newest));
    let missed = last < range.removed_to;
    Ok(StartPosition { last: last.max(range.removed_to), missed })
}

/// The next batch of events of conversation `id` after event `last`, with the current state of
/// their messages. `None` if the conversation does not exist or is not visible.
pub async fn after(
    db: &Db,
    id: i64,
    visibility: Visibility,
    mut last: i64,
) -> Result<Option<EventBatch>> {
    let Some(mut events) = repository::after(db, id, visibility, last, BATCH).await? else {
        return Ok(None);
    };
    let fitting = how_many_fit(&events);
    let more = fitting < events.len() || events.len() == BATCH;
    events.truncate(fitting);
    let mut ids: Vec<i64> = events.iter().filter_map(|event| event.message_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let messages = repository::messages(db, id, visibility, &ids).await?;
    if messages.len() < ids.len() {
        // Messages are never removed one by one, so the conversation was deleted or is no longer
        // visible. Without this check, the client would skip the missing messages.
        return Ok(None);
    }
    let messages: HashMap<i64, Message<'static>> =
        messages.into_iter().map(|message| (message.id, message)).collect();
    let mut text = EventText::default();
    for event in events {
        last = event.id;
        let kind = event.kind.clone();
        // `None` if the message was deleted with its conversation in the meantime.
        if let Some(subject) = subject(event, id, &messages) {
            let written = text.push(last, &kind, &subject);
            written.map_err(|error| Error::Internal(error.to_string().into()))?;
        }
    }
    Ok(Some(EventBatch { text, last, more }))
}

/// Number of leading `events` that fit into one batch; at least one.
fn how_many_fit(events: &[EventRow]) -> usize {
    let mut room = BATCH_BYTES;
    let fits = |(index, event): &(usize, &EventRow)| {
        room -= event.bytes;
        *index == 0 || room >= 0
    };
    events.iter().enumerate().take_while(fits).count()
}

/// The data of `event` of conversation `id`.
fn subject(
    event: EventRow,
    id: i64,
    messages: &HashMap<i64, Message<'static>>,
) -> Option<EventData> {
    if let Some(message_id) = event.message_id {
        return messages.get(&message_id).cloned().map(Box::new).map(EventData::Message);
    }
    if let Some(id) = event.user_id {
        return Some(EventData::Participant { id, username: event.username });
    }
    let metadata = Metadata::shown(event.metadata);
    Some(EventData::Conversation { id, title: event.title, metadata })
}

/// Creates a ticket for conversation `id` with the access of the caller.
pub async fn make_ticket(app: &AppState, id: i64, access: &Access) -> Result<Ticket> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !conversations::exists(&mut tx, id, access.visibility()).await? {
        return Err(NOT_FOUND);
    }
    let created = ticket::create(&mut tx, id, access, now).await?;
    tx.commit().await?;
    Ok(Ticket { ticket: created.secret, expires_at: Timestamp(created.expires_at) })
}

/// Deletes expired tickets, and events older than `EVENT_RETENTION_DAYS`.
pub async fn forget_old(app: &AppState) -> Result<()> {
    ticket::delete_expired(&app.db, app.clock.now()).await?;
    let before = app.clock.now() - app.config.retention.events;
    while let Some(id) = repository::with_oldest(&app.db, before).await? {
        if app.stopping.is_cancelled() {
            break;
        }
        // One conversation per transaction, so that a transaction holds only one conversation's
        // lock.
        let mut tx = app.db.begin().await?;
        repository::forget(&mut tx, id, before, MAX_REMOVED).await?;
        tx.commit().await?;
    }
    Ok(())
}
