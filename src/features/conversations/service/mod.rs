//! The rules of conversations.

pub mod messages;
pub mod participants;
mod quota;

use super::large::Large;
use super::model::{
    Conversation, ConversationChanges, ConversationId, ConversationOrder, Message, Metadata,
    NewConversation, Participant, UserNames,
};
use super::repository::{self, Belongings, ConversationRow, ConversationSlice, Room, Selection};
use crate::audit::{Action, Origin};
use crate::core::error::{Error, Result};
use crate::db::{Db, Tx};
use crate::http::{Fields, Link, Listed, Made, Once, Window, Written};
use crate::security::Reach;
use crate::state::AppState;
use quota::Added;
use serde_json::json;
use std::collections::HashSet;

pub(super) const NOT_FOUND: Error = Error::NotFound("Conversation");
/// Messages that the answer to a change shows.
const MESSAGES_AFTER_CHANGE: i64 = 20;
/// Most messages that are removed in one transaction.
const DELETED_AT_ONCE: i64 = 1000;
/// Most bytes of participants and messages in one answer.
pub(super) const EMBEDDED_BYTES: usize = 16 * 1024 * 1024;
/// About the bytes of the largest answer that is read and written at once.
const WHOLE_BYTES: i64 = 1024 * 1024;

/// Creates a conversation and returns its id. A signed-in user becomes a participant.
pub async fn create(
    app: &AppState,
    reach: Reach,
    new: &NewConversation,
    once: Option<&Once>,
) -> Result<Made<i64>> {
    let own = reach.user_id();
    if own.is_some_and(|own| new.participant_ids.iter().any(|id| *id != own)) {
        return Err(participants::by_name_only());
    }
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    if let Some(once) = once
        && let Some(earlier) = once.claim(&mut tx, now).await?
    {
        tx.rollback().await?;
        return Ok(Made::Before(earlier.id));
    }
    let (title, metadata) = (new.title.as_deref(), new.metadata.as_ref());
    let id = repository::insert(&mut tx, title, metadata, now).await?;
    quota::count(app, &mut tx, id, reach, Added::conversation(title, metadata)).await?;
    let mut user_ids = new.participant_ids.clone();
    user_ids.extend(ids_of(&mut tx, &new.participant_usernames).await?);
    user_ids.extend(own);
    let added = repository::participants::insert(&mut tx, id, &user_ids).await?;
    let added: HashSet<i64> = added.into_iter().collect();
    let unknown: Vec<i64> =
        new.participant_ids.iter().copied().filter(|id| !added.contains(id)).collect();
    if !unknown.is_empty() {
        let ids: Vec<String> = unknown.iter().map(ToString::to_string).collect();
        let msg = format!("Value error, no users have these ids: {}", ids.join(", "));
        return Err(Fields::refusal("body", "participant_ids", "value_error", msg, unknown));
    }
    if let Some(once) = once {
        once.made(&mut tx, id, 1).await?;
    }
    tx.commit().await?;
    Ok(Made::Now(id))
}

/// The ids of the users called so. Fails with 422 when there are none of some name.
async fn ids_of(tx: &mut Tx, names: &UserNames) -> Result<Vec<i64>> {
    let found = repository::accounts(tx, names.names()).await?;
    let known = found.iter().map(|(name, _)| name).collect();
    let unknown = names.except(&known);
    if !unknown.is_empty() {
        let msg = format!("Value error, no users have these names: {}", unknown.join(", "));
        return Err(Fields::refusal("body", "participant_usernames", "value_error", msg, unknown));
    }
    Ok(found.iter().map(|(_, account)| account.id).collect())
}

/// A page of the conversations within `reach`, each with its newest messages.
pub async fn list(
    db: &Db,
    reach: Reach,
    window: Window<ConversationOrder>,
    message_limit: i64,
) -> Result<(Link, Written<Vec<Conversation<'static>>>)> {
    let slice = match window.order {
        ConversationOrder::Recent => {
            ConversationSlice::Recent(window.resolve("recent conversations")?)
        }
        _ => ConversationSlice::ById(window.resolve("conversations")?),
    };
    read_page(db, reach.user_id(), slice, reach, message_limit).await
}

/// The same of those that user `user_id` takes part in. Nobody logged in sees those of others.
pub async fn list_of_user(
    db: &Db,
    user_id: i64,
    reach: Reach,
    window: Window<ConversationOrder>,
    message_limit: i64,
) -> Result<(Link, Written<Vec<Conversation<'static>>>)> {
    if reach.user_id().is_some_and(|own| own != user_id) {
        return Err(Error::NotFound("User"));
    }
    let slice = match window.order {
        ConversationOrder::Recent => {
            ConversationSlice::Recent(window.resolve(("recent conversations of user", user_id))?)
        }
        _ => ConversationSlice::ById(window.resolve(("conversations of user", user_id))?),
    };
    read_page(db, Some(user_id), slice, reach, message_limit).await
}

/// One conversation with its newest messages.
pub async fn get(
    db: &Db,
    id: i64,
    reach: Reach,
    message_limit: i64,
) -> Result<Written<Conversation<'static>>> {
    let selection = Selection::Ids(&[id], reach);
    let room = Room { each: message_limit, bytes: Some(WHOLE_BYTES) };
    let Some(mut found) = repository::find(db, selection, reach, room).await? else {
        return Large::one(db, id, reach, message_limit).await;
    };
    let bytes = found.answer_bytes();
    let rows = std::mem::take(&mut found.conversations);
    let belongings = found.belongings()?;
    let conversations = complete(rows, &belongings, &mut { EMBEDDED_BYTES });
    Written::new(conversations.first().ok_or(NOT_FOUND)?, bytes)
}

/// Conversation `id` as the answer to a change: with fewer messages than [`get`] shows.
pub async fn get_changed(db: &Db, id: i64, reach: Reach) -> Result<Written<Conversation<'static>>> {
    get(db, id, reach, MESSAGES_AFTER_CHANGE).await
}

/// Conversation `id` as the answer to its creation, for a caller who may read it.
pub async fn get_created(db: &Db, id: i64, reach: Reach) -> Result<Written<Conversation<'static>>> {
    get(db, id, reach, 0).await
}

/// The id of conversation `id`, for a caller who may not read it. Fails with 404 when it was deleted.
pub async fn get_id(db: &Db, id: i64, reach: Reach) -> Result<ConversationId> {
    let mut snapshot = db.snapshot().await?;
    let exists = repository::exists(&mut snapshot, id, reach).await?;
    exists.then_some(ConversationId { id }).ok_or(NOT_FOUND)
}

/// Changes conversation `id`.
pub async fn update(app: &AppState, id: i64, changes: &ConversationChanges) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let (title, metadata) = (changes.title.as_deref(), changes.metadata.as_ref());
    if !repository::update(&mut tx, id, title, metadata, app.clock.now()).await? {
        return Err(NOT_FOUND);
    }
    commit(app, tx, id).await
}

/// Removes conversation `id` with its messages. Of a long one nothing is found from now on, and its
/// rows go a little later, some at a time: all at once they would keep other writers waiting.
pub async fn delete(app: &AppState, by: &Origin, id: i64) -> Result<()> {
    let mut tx = app.db.begin().await?;
    if !repository::lock(&mut tx, id, Reach::Everything).await? {
        return Err(NOT_FOUND);
    }
    let last = repository::last_seq(&mut tx, id, Reach::Everything).await?.ok_or(NOT_FOUND)?;
    if last <= DELETED_AT_ONCE {
        repository::delete(&mut tx, id).await?;
    } else {
        repository::retire(&mut tx, id, app.clock.now()).await?;
    }
    let (details, now) = (json!({ "conversation_id": id, "messages": last }), app.clock.now());
    app.audit.record_of_key(&mut tx, Some(by), Action::DeleteConversation, &details, now).await?;
    commit(app, tx, id).await
}

/// Commits a change of conversation `id`, and tells those who watch it.
async fn commit(app: &AppState, tx: Tx, id: i64) -> Result<()> {
    let committed = tx.commit().await;
    // Whose answer was lost may have happened all the same.
    app.live.happened(id);
    Ok(committed?)
}

async fn read_page(
    db: &Db,
    of_user: Option<i64>,
    slice: ConversationSlice,
    reach: Reach,
    message_limit: i64,
) -> Result<(Link, Written<Vec<Conversation<'static>>>)> {
    let room = Room { each: message_limit, bytes: Some(WHOLE_BYTES) };
    let selection = Selection::Listed { of_user, slice: &slice };
    let Some(mut found) = repository::find(db, selection, reach, room).await? else {
        let weighed = repository::weigh(db, selection, message_limit).await?;
        let Listed { entries, link } = slice.page(weighed);
        return Ok((link, Large::list(db, &entries, reach, message_limit).await?));
    };
    let bytes = found.answer_bytes();
    let Listed { entries, link } = slice.page(std::mem::take(&mut found.conversations));
    let belongings = found.belongings()?;
    let conversations = complete(entries, &belongings, &mut { EMBEDDED_BYTES });
    Ok((link, Written::new(&conversations, bytes)?))
}

/// `rows`, in their order, with what belongs to each, as far as `room` has bytes for it: those are
/// taken off.
pub(super) fn complete<'t>(
    rows: Vec<ConversationRow>,
    all: &'t Belongings<'t>,
    room: &mut usize,
) -> Vec<Conversation<'t>> {
    let conversations = rows.into_iter().map(|row| {
        let participants = first_that_fit(all.participants_of(row.id), room);
        let messages = newest_that_fit(all.messages_of(row.id), room);
        let is_fewer = |shown: usize, all| i64::try_from(shown).is_ok_and(|shown| shown < all);
        Conversation {
            id: row.id,
            title: row.title,
            created_at: row.created_at,
            updated_at: row.updated_at,
            last_message_at: (row.last_seq > 0).then_some(row.active_at),
            metadata: Metadata::shown(row.metadata),
            participants_truncated: is_fewer(participants.len(), row.participant_count),
            participants,
            participant_count: row.participant_count,
            message_count: row.last_seq,
            messages_truncated: is_fewer(messages.len(), row.last_seq),
            messages,
        }
    });
    conversations.collect()
}

/// The first of `participants` that `room` has bytes for, which are taken off it.
fn first_that_fit<'t>(
    mut participants: Vec<&'t Participant<'t>>,
    room: &mut usize,
) -> Vec<&'t Participant<'t>> {
    let fits = |participant: &&&Participant<'_>| match room.checked_sub(participant.json_bytes()) {
        Some(left) => {
            *room = left;
            true
        }
        None => false,
    };
    let shown = participants.iter().take_while(fits).count();
    participants.truncate(shown);
    participants
}

/// The newest of `messages` that `room` has bytes for, which are taken off it. Where one does not
/// fit, nothing older does, in this conversation and the next ones.
fn newest_that_fit<'t>(messages: &'t [Message<'t>], room: &mut usize) -> &'t [Message<'t>] {
    let mut first = messages.len();
    for message in messages.iter().rev() {
        let Some(left) = room.checked_sub(message.json_bytes()) else {
            *room = 0;
            break;
        };
        *room = left;
        first -= 1;
    }
    &messages[first..]
}
