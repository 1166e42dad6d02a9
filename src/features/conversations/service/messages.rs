//! Message operations.

use super::commit::{NOT_FOUND, commit};
use super::quota::{self, StorageChange};
use crate::audit::{Action, Origin};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::db::{Db, Tx};
use crate::features::conversations::model::{
    Message, MessageChanges, Metadata, NewMessage, Participant, ROLES,
};
use crate::features::conversations::repository::{self, messages, participants};
use crate::features::conversations::search::{self, BatchSize};
use crate::http::{Creation, IdempotencyRecord, IfMatch, ListPage, OldestFirst, Replay, Window};
use crate::security::Visibility;
use crate::state::AppState;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

const NO_MESSAGE: Error = Error::NotFound("Message");

/// Appends a message. Its `seq` is assigned in the same transaction, so all readers see messages in
/// the order of their commits.
pub async fn append(
    app: &AppState,
    id: i64,
    author: Author,
    new: NewMessage,
    record: Option<&IdempotencyRecord>,
) -> Result<Creation<Message<'static>>> {
    let made = append_all(app, id, author, vec![new], record).await?;
    let first = |messages: Vec<Message<'static>>| messages.into_iter().next().ok_or(NO_MESSAGE);
    Ok(match made {
        Creation::Created(messages) => Creation::Created(first(messages)?),
        Creation::Replayed(messages) => Creation::Replayed(first(messages)?),
    })
}

/// Appends consecutive messages: all of them or none.
pub async fn append_all(
    app: &AppState,
    id: i64,
    Author { visibility, may_read }: Author,
    mut new: Vec<NewMessage>,
    record: Option<&IdempotencyRecord>,
) -> Result<Creation<Vec<Message<'static>>>> {
    for message in &mut new {
        set_author(visibility, message)?;
    }
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    if let Some(record) = record
        && let Some(earlier) = record.claim(&mut tx, now).await?
    {
        let mut messages = earlier_messages(&mut tx, id, visibility, earlier).await?;
        if !may_read {
            messages = messages.into_iter().zip(new).map(as_sent).collect();
        }
        return Ok(Creation::Replayed(messages));
    }
    let count = i64::try_from(new.len()).unwrap_or(i64::MAX);
    let bytes = new.iter().map(|message| message.content.len()).sum();
    let Stored { first_seq, ids, created_at, authors } = match (visibility, &*new) {
        (Visibility::All, [new]) if new.user_id.is_none() => {
            let written = messages::append_one(&mut tx, id, new, now).await?;
            let (first_seq, message_id, created_at) = written.ok_or(NOT_FOUND)?;
            Stored { first_seq, ids: vec![message_id], created_at, authors: HashMap::new() }
        }
        (_, new) => {
            let stored = write(&mut tx, id, visibility, new, count, now).await?;
            quota::count(app, &mut tx, id, visibility, StorageChange::messages(new)).await?;
            stored
        }
    };
    let written = BatchSize::of(new.len(), bytes);
    if !written.is_large() {
        search::index_backlog(&mut tx, written).await?;
    }
    if let Some(record) = record {
        record.store_result(&mut tx, ids.first().copied().unwrap_or_default(), count).await?;
    }
    commit(app, tx, id).await?;
    if written.is_large() {
        search::index_backlog_after(&app.db, written).await;
    }
    let appended = (first_seq..).zip(ids).zip(new).map(|((seq, message_id), new)| {
        let user_id = new.user_id.filter(|_| may_read);
        let user = user_id.and_then(|user_id| authors.get(&user_id).cloned());
        appended(id, seq, message_id, new, user, created_at)
    });
    Ok(Creation::Created(appended.collect()))
}

/// Permissions of the caller who appends messages.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    /// The conversations the caller may write to.
    pub visibility: Visibility,
    /// Whether responses may contain more than the caller sent.
    pub may_read: bool,
}

/// Messages that were inserted.
struct Stored {
    first_seq: i64,
    ids: Vec<i64>,
    created_at: Timestamp,
    authors: HashMap<i64, Participant<'static>>,
}

async fn write(
    tx: &mut Tx,
    id: i64,
    visibility: Visibility,
    new: &[NewMessage],
    count: i64,
    now: DateTime<Utc>,
) -> Result<Stored> {
    let next = messages::next_seqs(tx, id, visibility, count, now).await?;
    let (last_seq, created_at) = next.ok_or(NOT_FOUND)?;
    let first_seq = last_seq - count + 1;
    let authors = authors(tx, id, visibility, new).await?;
    let ids = messages::insert(tx, id, first_seq, new, created_at).await?;
    Ok(Stored { first_seq, ids, created_at, authors })
}

/// Checks the role and sets the author. A signed-in user may append only their own `user` messages.
fn set_author(visibility: Visibility, new: &mut NewMessage) -> Result<()> {
    if !ROLES.contains(&new.role.as_str()) {
        return Err(Error::Refused("Role must be 'user', 'assistant', or 'system'".into()));
    }
    let Some(own) = visibility.user_id() else { return Ok(()) };
    if new.role != "user" {
        return Err(Error::Forbidden("A signed-in user can only post as 'user'".into()));
    }
    if new.user_id.is_some_and(|user_id| user_id != own) {
        return Err(Error::Forbidden("A signed-in user can only post as themselves".into()));
    }
    new.user_id = Some(own);
    Ok(())
}

/// The authors of `new`. Fails unless all of them are participants.
async fn authors(
    tx: &mut Tx,
    id: i64,
    visibility: Visibility,
    new: &[NewMessage],
) -> Result<HashMap<i64, Participant<'static>>> {
    let user_ids: HashSet<i64> = new.iter().filter_map(|message| message.user_id).collect();
    let authors = participants::find_all(tx, id, &user_ids, visibility).await?;
    if authors.len() == user_ids.len() {
        return Ok(authors);
    }
    Err(match visibility {
        Visibility::All => {
            Error::Forbidden("User is not a participant in this conversation".into())
        }
        // The user left the conversation while this request waited for the lock.
        Visibility::ParticipantOf(_) => NOT_FOUND,
    })
}

/// The messages of the replayed request in their current state. Fails with 404 if they are no
/// longer visible.
async fn earlier_messages(
    tx: &mut Tx,
    id: i64,
    visibility: Visibility,
    earlier: Replay,
) -> Result<Vec<Message<'static>>> {
    let first = messages::find(&mut *tx, id, earlier.id, visibility).await?.ok_or(NOT_FOUND)?;
    Ok(messages::numbered(tx, id, visibility, first.seq, first.seq + earlier.count - 1).await?)
}

fn appended(
    conversation_id: i64,
    seq: i64,
    id: i64,
    new: NewMessage,
    user: Option<Participant<'static>>,
    created_at: Timestamp,
) -> Message<'static> {
    Message {
        id,
        conversation_id,
        seq,
        role: new.role.into(),
        content: new.content.into(),
        user_id: new.user_id,
        user,
        metadata: Metadata::shown(new.metadata.map(Metadata::into_string)),
        created_at,
        edited_at: None,
        deleted_at: None,
        version: 1,
    }
}

/// A replayed message as the request sent it, for a caller who may not read its current state.
fn as_sent((stored, new): (Message<'static>, NewMessage)) -> Message<'static> {
    let (id, seq, created_at) = (stored.id, stored.seq, stored.created_at);
    let sent = appended(stored.conversation_id, seq, id, new, None, created_at);
    Message { version: stored.version, ..sent }
}

/// The `seq` of each message on a page, in the order of the page.
pub async fn numbers(
    db: &Db,
    id: i64,
    visibility: Visibility,
    window: Window<OldestFirst>,
) -> Result<ListPage<i64>> {
    let slice = window.resolve(("messages", id))?;
    let last = repository::last_seq(db, id, visibility).await?.ok_or(NOT_FOUND)?;
    Ok(slice.numbers(last))
}

/// Gets a message.
pub async fn get(
    db: &Db,
    id: i64,
    message_id: i64,
    visibility: Visibility,
) -> Result<Message<'static>> {
    let mut snapshot = db.snapshot().await?;
    if !repository::exists(&mut snapshot, id, visibility).await? {
        return Err(NOT_FOUND);
    }
    messages::find(&mut snapshot, id, message_id, visibility).await?.ok_or(NO_MESSAGE)
}

/// Edits a message: the user's own, or any for an API key. Fails with 412 if `if_match` names
/// another version.
pub async fn edit(
    app: &AppState,
    id: i64,
    message_id: i64,
    visibility: Visibility,
    by: Option<&Origin>,
    if_match: &IfMatch,
    changes: &MessageChanges,
) -> Result<Message<'static>> {
    let mut tx = app.db.begin().await?;
    let message = lock_message(&mut tx, id, message_id, visibility, if_match).await?;
    if message.deleted_at.is_some() {
        return Err(Error::Conflict("This message was deleted".into()));
    }
    if changes.content.is_none() && changes.metadata.is_none() {
        return Ok(message);
    }
    let (now, audit_origin) = (app.clock.now(), audit_origin(&message, by));
    repository::touch(&mut tx, id, now).await?;
    messages::update(&mut tx, message_id, changes, now).await?;
    quota::count(app, &mut tx, id, visibility, StorageChange::changed(&message, changes)).await?;
    let message = messages::find(&mut tx, id, message_id, visibility).await?.ok_or(NO_MESSAGE)?;
    let details = details(&message);
    app.audit.record_of_key(&mut tx, audit_origin, Action::EditMessage, &details, now).await?;
    commit(app, tx, id).await?;
    Ok(message)
}

/// The API key to record in the audit log if it changes a message that a user wrote. Changes of
/// other messages are not recorded: programs rewrite them while they generate them.
fn audit_origin<'o>(message: &Message<'_>, by: Option<&'o Origin>) -> Option<&'o Origin> {
    by.filter(|_| message.user_id.is_some() || message.role.is("user"))
}

/// The details of an audit entry for a changed message, without its content.
fn details(message: &Message<'_>) -> Value {
    json!({
        "conversation_id": message.conversation_id,
        "message_id": message.id,
        "user_id": message.user_id,
        "version": message.version,
    })
}

/// Soft-deletes a message: erases its content and metadata, keeps its `seq`. Idempotent.
pub async fn delete(
    app: &AppState,
    id: i64,
    message_id: i64,
    visibility: Visibility,
    by: Option<&Origin>,
    if_match: &IfMatch,
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let message = lock_message(&mut tx, id, message_id, visibility, if_match).await?;
    if message.deleted_at.is_some() {
        return Ok(());
    }
    let now = app.clock.now();
    repository::touch(&mut tx, id, now).await?;
    messages::erase(&mut tx, message_id, now).await?;
    quota::count(app, &mut tx, id, visibility, StorageChange::erased(&message)).await?;
    let (audit_origin, details) = (audit_origin(&message, by), details(&message));
    app.audit.record_of_key(&mut tx, audit_origin, Action::DeleteMessage, &details, now).await?;
    commit(app, tx, id).await
}

/// Locks the conversation until `tx` ends and returns the message if the caller may change it.
async fn lock_message(
    tx: &mut Tx,
    id: i64,
    message_id: i64,
    visibility: Visibility,
    if_match: &IfMatch,
) -> Result<Message<'static>> {
    if !repository::lock(&mut *tx, id, visibility).await? {
        return Err(NOT_FOUND);
    }
    let message = messages::find(tx, id, message_id, visibility).await?.ok_or(NO_MESSAGE)?;
    let is_own = |own| message.user_id == Some(own) && message.role.is("user");
    if visibility.user_id().is_some_and(|own| !is_own(own)) {
        return Err(Error::Forbidden("Only its author may change a message".into()));
    }
    if_match.check(message.version)?;
    Ok(message)
}
