//! Operations on whole conversations.

use super::assembly::{EMBEDDED_BYTES, complete};
use super::commit::{NOT_FOUND, commit};
use super::participants;
use super::quota::{self, StorageChange};
use crate::audit::{Action, Origin};
use crate::core::error::{Error, Result};
use crate::db::{Db, Tx};
use crate::features::conversations::large::ConversationStream;
use crate::features::conversations::model::{
    Conversation, ConversationChanges, ConversationId, ConversationOrder, Metadata, MetadataChange,
    NewConversation, UserNames,
};
use crate::features::conversations::repository::{self, ConversationSlice, ReadLimit, Selection};
use crate::http::{Creation, Fields, IdempotencyRecord, Link, ListPage, RawJson, Window};
use crate::security::Visibility;
use crate::state::AppState;
use serde_json::json;
use std::collections::HashSet;

/// Number of messages in the response to a change.
const MESSAGES_AFTER_CHANGE: i64 = 20;
/// Maximum number of messages removed in one transaction.
const MAX_DELETED_PER_TRANSACTION: i64 = 1000;
/// Approximate size above which a response is streamed, in bytes.
const STREAM_ABOVE_BYTES: i64 = 1024 * 1024;

/// Creates a conversation and returns its id. A signed-in user becomes a participant.
pub async fn create(
    app: &AppState,
    visibility: Visibility,
    new: &NewConversation,
    record: Option<&IdempotencyRecord>,
) -> Result<Creation<i64>> {
    let own = visibility.user_id();
    if own.is_some_and(|own| new.participant_ids.iter().any(|id| *id != own)) {
        return Err(participants::by_name_only());
    }
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    if let Some(record) = record
        && let Some(earlier) = record.claim(&mut tx, now).await?
    {
        tx.rollback().await?;
        return Ok(Creation::Replayed(earlier.id));
    }
    let (title, metadata) = (new.title.as_deref(), new.metadata.as_ref());
    let id = repository::insert(&mut tx, title, metadata, now).await?;
    quota::count(app, &mut tx, id, visibility, StorageChange::conversation(title, metadata))
        .await?;
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
    if let Some(record) = record {
        record.store_result(&mut tx, id, 1).await?;
    }
    tx.commit().await?;
    Ok(Creation::Created(id))
}

/// The ids of the users with these names. Fails with 422 if a name is unknown.
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

/// A page of the visible conversations, each with its newest messages.
pub async fn list(
    db: &Db,
    visibility: Visibility,
    window: Window<ConversationOrder>,
    message_limit: i64,
) -> Result<(Link, RawJson<Vec<Conversation<'static>>>)> {
    let slice = match window.order {
        ConversationOrder::Recent => {
            ConversationSlice::Recent(window.resolve("recent conversations")?)
        }
        _ => ConversationSlice::ById(window.resolve("conversations")?),
    };
    read_page(db, visibility.user_id(), slice, visibility, message_limit).await
}

/// A page of the conversations in which user `user_id` is a participant. Fails with 404 if a
/// signed-in user requests those of another user.
pub async fn list_of_user(
    db: &Db,
    user_id: i64,
    visibility: Visibility,
    window: Window<ConversationOrder>,
    message_limit: i64,
) -> Result<(Link, RawJson<Vec<Conversation<'static>>>)> {
    if visibility.user_id().is_some_and(|own| own != user_id) {
        return Err(Error::NotFound("User"));
    }
    let slice = match window.order {
        ConversationOrder::Recent => {
            ConversationSlice::Recent(window.resolve(("recent conversations of user", user_id))?)
        }
        _ => ConversationSlice::ById(window.resolve(("conversations of user", user_id))?),
    };
    read_page(db, Some(user_id), slice, visibility, message_limit).await
}

/// Gets a conversation with its newest messages.
pub async fn get(
    db: &Db,
    id: i64,
    visibility: Visibility,
    message_limit: i64,
) -> Result<RawJson<Conversation<'static>>> {
    let selection = Selection::Ids(&[id], visibility);
    let room = ReadLimit { each: message_limit, bytes: Some(STREAM_ABOVE_BYTES) };
    let Some(mut found) = repository::find(db, selection, visibility, room).await? else {
        return ConversationStream::one(db, id, visibility, message_limit).await;
    };
    let bytes = found.answer_bytes();
    let rows = std::mem::take(&mut found.conversations);
    let embedded = found.embedded()?;
    let conversations = complete(rows, &embedded, &mut { EMBEDDED_BYTES });
    RawJson::new(conversations.first().ok_or(NOT_FOUND)?, bytes)
}

/// Conversation `id` for the response to a change, with at most `MESSAGES_AFTER_CHANGE` messages.
pub async fn get_changed(
    db: &Db,
    id: i64,
    visibility: Visibility,
) -> Result<RawJson<Conversation<'static>>> {
    get(db, id, visibility, MESSAGES_AFTER_CHANGE).await
}

/// Conversation `id` for the response to its creation, for a caller who may read it.
pub async fn get_created(
    db: &Db,
    id: i64,
    visibility: Visibility,
) -> Result<RawJson<Conversation<'static>>> {
    get(db, id, visibility, 0).await
}

/// The id of conversation `id`, for a caller who may not read it. Fails with 404 if it was deleted.
pub async fn get_id(db: &Db, id: i64, visibility: Visibility) -> Result<ConversationId> {
    let mut snapshot = db.snapshot().await?;
    let exists = repository::exists(&mut snapshot, id, visibility).await?;
    exists.then_some(ConversationId { id }).ok_or(NOT_FOUND)
}

/// Updates conversation `id`. Fails with 404 if there is no such conversation, and with 422 if its
/// metadata would become too large.
pub async fn update(app: &AppState, id: i64, changes: &ConversationChanges) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let metadata = match &changes.metadata {
        Some(change) => Some(changed_metadata(&mut tx, id, change).await?),
        None => None,
    };
    let title = changes.title.as_ref().map(Option::as_deref);
    let metadata = metadata.as_ref().map(Option::as_ref);
    if !repository::update(&mut tx, id, title, metadata, app.clock.now()).await? {
        return Err(NOT_FOUND);
    }
    commit(app, tx, id).await
}

/// The metadata of conversation `id` after `change`. Locks the conversation if that depends on the
/// stored metadata, so that no concurrent change is lost.
async fn changed_metadata(
    tx: &mut Tx,
    id: i64,
    change: &MetadataChange,
) -> Result<Option<Metadata>> {
    match change {
        MetadataChange::Clear => Ok(None),
        MetadataChange::Replace(metadata) => Ok(Some(metadata.clone())),
        MetadataChange::Merge(patch) => {
            if !repository::lock(tx, id, Visibility::All).await? {
                return Err(NOT_FOUND);
            }
            let stored = repository::metadata(tx, id).await?;
            patch.applied_to(stored.as_deref())
        }
    }
}

/// Deletes conversation `id` with its messages. A long conversation becomes inaccessible
/// immediately; its rows are removed later in batches, because one large delete would block other
/// writers.
pub async fn delete(app: &AppState, by: &Origin, id: i64) -> Result<()> {
    let mut tx = app.db.begin().await?;
    if !repository::lock(&mut tx, id, Visibility::All).await? {
        return Err(NOT_FOUND);
    }
    let last = repository::last_seq(&mut tx, id, Visibility::All).await?.ok_or(NOT_FOUND)?;
    if last <= MAX_DELETED_PER_TRANSACTION {
        repository::delete(&mut tx, id).await?;
    } else {
        repository::retire(&mut tx, id, app.clock.now()).await?;
    }
    let (details, now) = (json!({ "conversation_id": id, "messages": last }), app.clock.now());
    app.audit.record_of_key(&mut tx, Some(by), Action::DeleteConversation, &details, now).await?;
    commit(app, tx, id).await
}

async fn read_page(
    db: &Db,
    of_user: Option<i64>,
    slice: ConversationSlice,
    visibility: Visibility,
    message_limit: i64,
) -> Result<(Link, RawJson<Vec<Conversation<'static>>>)> {
    let room = ReadLimit { each: message_limit, bytes: Some(STREAM_ABOVE_BYTES) };
    let selection = Selection::Page { of_user, slice: &slice };
    let Some(mut found) = repository::find(db, selection, visibility, room).await? else {
        let measured = repository::measure(db, selection, message_limit).await?;
        let ListPage { entries, link } = slice.page(measured);
        return Ok((
            link,
            ConversationStream::list(db, &entries, visibility, message_limit).await?,
        ));
    };
    let bytes = found.answer_bytes();
    let ListPage { entries, link } = slice.page(std::mem::take(&mut found.conversations));
    let embedded = found.embedded()?;
    let conversations = complete(entries, &embedded, &mut { EMBEDDED_BYTES });
    Ok((link, RawJson::new(&conversations, bytes)?))
}
