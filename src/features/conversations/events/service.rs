//! The rules of watching.

use super::model::{Subject, Text, Ticket};
use super::repository::{self, EventRow};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::core::key_format::{TICKET_PREFIX, is_token};
use crate::db::Db;
use crate::features::conversations::model::{Message, Metadata};
use crate::features::conversations::repository as conversations;
use crate::features::conversations::service::NOT_FOUND;
use crate::security::credential::CredentialId;
use crate::security::{Access, Reach, secret};
use crate::state::AppState;
use chrono::TimeDelta;
use std::collections::HashMap;

/// How long a ticket is good.
const TICKET_LIFE: TimeDelta = TimeDelta::seconds(60);
/// Most events read at once.
const BATCH: usize = 100;
/// Most events removed in one transaction.
const FORGOTTEN: i64 = 1000;
/// Most bytes of messages written at once, unless a single one has more.
const BATCH_BYTES: i64 = 256 * 1024;

/// What happened after some event.
#[derive(Debug)]
pub struct News {
    /// As it is sent.
    pub text: Text,
    /// The id of the last event in it.
    pub last: i64,
    /// Whether there may be more already.
    pub more: bool,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// The id of the event after which it does.
    pub last: i64,
    /// Whether its client has not seen all events before, and some of them are gone.
    pub missed: bool,
}

/// Where a stream begins: after the event its client saw last, or the newest. A later one than that
/// comes from a database that was put back, and would hide what happens now.
pub async fn begin(db: &Db, id: i64, reach: Reach, last_seen: Option<i64>) -> Result<Beginning> {
    let kept = repository::kept(db, id, reach).await?.ok_or(NOT_FOUND)?;
    let last = last_seen.map_or(kept.newest, |last| last.min(kept.newest));
    let missed = last < kept.removed_to;
    Ok(Beginning { last: last.max(kept.removed_to), missed })
}

/// What happened in conversation `id` after the event `last`, as it is now; `None` when there is no
/// such conversation within `reach`.
pub async fn after(db: &Db, id: i64, reach: Reach, mut last: i64) -> Result<Option<News>> {
    let Some(mut events) = repository::after(db, id, reach, last, BATCH).await? else {
        return Ok(None);
    };
    let fitting = how_many_fit(&events);
    let more = fitting < events.len() || events.len() == BATCH;
    events.truncate(fitting);
    let mut ids: Vec<i64> = events.iter().filter_map(|event| event.message_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let messages = repository::messages(db, id, reach, &ids).await?;
    if messages.len() < ids.len() {
        // Messages do not go one by one: the conversation is gone meanwhile, or out of reach. To
        // leave them out would be to have sent them.
        return Ok(None);
    }
    let messages: HashMap<i64, Message<'static>> =
        messages.into_iter().map(|message| (message.id, message)).collect();
    let mut text = Text::default();
    for event in events {
        last = event.id;
        let kind = event.kind.clone();
        // Without, the message went with its conversation meanwhile.
        if let Some(subject) = subject(event, id, &messages) {
            let written = text.push(last, &kind, &subject);
            written.map_err(|error| Error::Internal(error.to_string().into()))?;
        }
    }
    Ok(Some(News { text, last, more }))
}

/// How many of `events` are written at once: at least one.
fn how_many_fit(events: &[EventRow]) -> usize {
    let mut room = BATCH_BYTES;
    let fits = |(index, event): &(usize, &EventRow)| {
        room -= event.bytes;
        *index == 0 || room >= 0
    };
    events.iter().enumerate().take_while(fits).count()
}

/// What `event` of conversation `id` tells of.
fn subject(event: EventRow, id: i64, messages: &HashMap<i64, Message<'static>>) -> Option<Subject> {
    if let Some(message_id) = event.message_id {
        return messages.get(&message_id).cloned().map(Box::new).map(Subject::Message);
    }
    if let Some(id) = event.user_id {
        return Some(Subject::Participant { id, username: event.username });
    }
    let metadata = Metadata::shown(event.metadata);
    Some(Subject::Conversation { id, title: event.title, metadata })
}

/// Makes a ticket for conversation `id`, which gives the access of whoever makes it.
pub async fn make_ticket(app: &AppState, id: i64, access: &Access) -> Result<Ticket> {
    let ticket = secret::make_token(TICKET_PREFIX, &mut rand::rng());
    let expires_at = app.clock.now() + TICKET_LIFE;
    let mut tx = app.db.begin().await?;
    if !conversations::exists(&mut tx, id, access.reach()).await? {
        return Err(NOT_FOUND);
    }
    let (hash, credential) = (secret::hash(&ticket), CredentialId::of(access));
    repository::insert_ticket(&mut tx, hash, id, credential, expires_at).await?;
    tx.commit().await?;
    Ok(Ticket { ticket, expires_at: Timestamp(expires_at) })
}

/// Spends a ticket for conversation `id`: the credential that made it. `None` when it is not good.
pub async fn spend_ticket(app: &AppState, id: i64, ticket: &str) -> Result<Option<CredentialId>> {
    let hash = secret::hash(ticket);
    // Whoever guesses must not make writers wait.
    if !is_token(TICKET_PREFIX, ticket) || !repository::has_ticket(&app.db, hash).await? {
        return Ok(None);
    }
    let spending = app.clone();
    // In a task of its own, as every write: a client that hangs up must not cut it in half.
    let spent = app.tasks.spawn(async move {
        let mut tx = spending.db.begin().await?;
        let now = spending.clock.now();
        let found = repository::spend_ticket(&mut tx, hash, id, now).await?;
        tx.commit().await?;
        Ok(found)
    });
    Ok(spent.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))?)
}

/// Deletes tickets that nobody spent in time, and events older than `EVENT_RETENTION_DAYS`.
pub async fn forget_old(app: &AppState) -> Result<()> {
    let mut tx = app.db.begin().await?;
    repository::forget_tickets(&mut tx, app.clock.now()).await?;
    tx.commit().await?;
    let before = app.clock.now() - app.config.retention.events;
    while let Some(id) = repository::with_oldest(&app.db, before).await? {
        if app.stopping.is_cancelled() {
            break;
        }
        // One conversation at a time, so that nobody waits for another's lock.
        let mut tx = app.db.begin().await?;
        repository::forget(&mut tx, id, before, FORGOTTEN).await?;
        tx.commit().await?;
    }
    Ok(())
}
