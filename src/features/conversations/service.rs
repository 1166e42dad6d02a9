//! The rules of conversations.

use super::model::{
    Conversation, ConversationChanges, Message, NewConversation, NewMessage, Participant,
};
use super::repository::{self, Selection};
use crate::core::error::{Error, Result};
use crate::db::{Db, Snapshot};
use crate::http::{Fields, Page};
use crate::state::AppState;
use std::collections::HashMap;

const NOT_FOUND: Error = Error::NotFound("Conversation");
const ROLES: [&str; 3] = ["user", "assistant", "system"];
/// Messages that the answer to a change shows.
const MESSAGES_AFTER_CHANGE: i64 = 20;
/// Most bytes of messages in one answer.
pub(super) const EMBEDDED_BYTES: usize = 16 * 1024 * 1024;

/// Begins a conversation.
pub async fn create(app: &AppState, new: &NewConversation) -> Result<Conversation> {
    let mut tx = app.db.begin().await?;
    let id = repository::insert(&mut tx, new.title.as_deref(), app.clock.now()).await?;
    let added = repository::insert_participants(&mut tx, id, &new.participant_ids).await?;
    let unknown: Vec<i64> =
        new.participant_ids.iter().copied().filter(|id| !added.contains(id)).collect();
    if !unknown.is_empty() {
        let ids: Vec<String> = unknown.iter().map(ToString::to_string).collect();
        let msg = format!("Value error, no users have these ids: {}", ids.join(", "));
        return Err(Fields::refusal("body", "participant_ids", "value_error", msg, unknown));
    }
    tx.commit().await?;
    get(&app.db, id, 0).await
}

/// A page of conversations, by id, each with its newest messages.
pub async fn list(db: &Db, page: Page, message_limit: i64) -> Result<Vec<Conversation>> {
    read(&mut db.snapshot().await?, Selection::All(page), message_limit).await
}

/// The same of those that user `user_id` takes part in.
pub async fn list_of_user(
    db: &Db,
    user_id: i64,
    page: Page,
    message_limit: i64,
) -> Result<Vec<Conversation>> {
    read(&mut db.snapshot().await?, Selection::OfUser(user_id, page), message_limit).await
}

/// One conversation with its newest messages.
pub async fn get(db: &Db, id: i64, message_limit: i64) -> Result<Conversation> {
    let found = read(&mut db.snapshot().await?, Selection::One(id), message_limit).await?;
    found.into_iter().next().ok_or(NOT_FOUND)
}

/// Changes conversation `id`.
pub async fn update(
    app: &AppState,
    id: i64,
    changes: &ConversationChanges,
) -> Result<Conversation> {
    let mut tx = app.db.begin().await?;
    if !repository::update(&mut tx, id, changes.title.as_deref(), app.clock.now()).await? {
        return Err(NOT_FOUND);
    }
    tx.commit().await?;
    get(&app.db, id, MESSAGES_AFTER_CHANGE).await
}

/// Removes conversation `id` with its messages.
pub async fn delete(app: &AppState, id: i64) -> Result<()> {
    let mut tx = app.db.begin().await?;
    if !repository::delete(&mut tx, id).await? {
        return Err(NOT_FOUND);
    }
    Ok(tx.commit().await?)
}

/// Lets a user take part. Again is as good as once.
pub async fn add_participant(app: &AppState, id: i64, user_id: i64) -> Result<Conversation> {
    const NEITHER: Error = Error::NotFound("Conversation or user");
    let mut tx = app.db.begin().await?;
    if !repository::lock(&mut tx, id).await? {
        return Err(NEITHER);
    }
    let added = match repository::insert_participants(&mut tx, id, &[user_id]).await {
        // On Postgres, the user was deleted while we looked.
        Err(error) if Error::is_foreign_key_violation(&error) => return Err(NEITHER),
        added => added?,
    };
    if !added.is_empty() {
        repository::update(&mut tx, id, None, app.clock.now()).await?;
    } else if !repository::user_exists(&mut tx, user_id).await? {
        return Err(NEITHER);
    }
    // Before the read: a request that holds one connection must not wait for another.
    tx.commit().await?;
    get(&app.db, id, MESSAGES_AFTER_CHANGE).await
}

/// Lets a user no longer take part; what they said stays.
pub async fn remove_participant(app: &AppState, id: i64, user_id: i64) -> Result<Conversation> {
    let mut tx = app.db.begin().await?;
    if !repository::lock(&mut tx, id).await? {
        return Err(NOT_FOUND);
    }
    if repository::delete_participant(&mut tx, id, user_id).await? {
        repository::update(&mut tx, id, None, app.clock.now()).await?;
    }
    tx.commit().await?;
    get(&app.db, id, MESSAGES_AFTER_CHANGE).await
}

/// Appends a message. Its number is taken in the same transaction, so messages are in the order in
/// which they were accepted, on every reader's screen.
pub async fn append(app: &AppState, id: i64, new: NewMessage) -> Result<Message> {
    if !ROLES.contains(&new.role.as_str()) {
        return Err(Error::Refused("Role must be 'user', 'assistant', or 'system'".into()));
    }
    let mut tx = app.db.begin().await?;
    let next = repository::next_seq(&mut tx, id, app.clock.now()).await?;
    let (seq, created_at) = next.ok_or(NOT_FOUND)?;
    let user = match new.user_id {
        Some(user_id) => {
            let stranger =
                || Error::Forbidden("User is not a participant in this conversation".into());
            let user = repository::participant(&mut tx, id, user_id).await?;
            Some(user.ok_or_else(stranger)?)
        }
        None => None,
    };
    let message_id = repository::insert_message(&mut tx, id, seq, &new, created_at).await?;
    tx.commit().await?;
    Ok(Message {
        id: message_id,
        conversation_id: id,
        role: new.role,
        content: new.content,
        user_id: new.user_id,
        user,
        created_at,
    })
}

/// A page of messages, in the order in which they were appended.
pub async fn messages(db: &Db, id: i64, page: Page) -> Result<Vec<Message>> {
    let mut snapshot = db.snapshot().await?;
    if !repository::exists(&mut snapshot, id).await? {
        return Err(NOT_FOUND);
    }
    // Messages are numbered without gaps, so leaving out some is beginning after their numbers.
    Ok(repository::messages(&mut snapshot, id, page.skip, page.limit).await?)
}

/// The newest of `messages` that `room` has bytes for, which are taken off it. Where one does not
/// fit, nothing older does, in this conversation and the next ones.
fn newest_that_fit(mut messages: Vec<Message>, room: &mut usize) -> Vec<Message> {
    let mut first = messages.len();
    for message in messages.iter().rev() {
        let Some(left) = room.checked_sub(message.json_bytes()) else {
            *room = 0;
            break;
        };
        *room = left;
        first -= 1;
    }
    messages.split_off(first)
}

/// Three statements, however many conversations there are.
async fn read(
    snapshot: &mut Snapshot,
    selection: Selection,
    message_limit: i64,
) -> Result<Vec<Conversation>> {
    let rows = repository::conversations(&mut *snapshot, selection).await?;
    if rows.is_empty() {
        return Ok(vec![]);
    }
    let mut participants: HashMap<i64, Vec<Participant>> = HashMap::new();
    for (id, participant) in repository::participants(&mut *snapshot, selection).await? {
        participants.entry(id).or_default().push(participant);
    }
    let mut messages: HashMap<i64, Vec<Message>> = HashMap::new();
    if message_limit > 0 {
        let newest =
            repository::newest_messages(&mut *snapshot, selection, message_limit, EMBEDDED_BYTES);
        for message in newest.await? {
            messages.entry(message.conversation_id).or_default().push(message);
        }
    }
    let mut room = EMBEDDED_BYTES;
    let conversations = rows.into_iter().map(|row| {
        let messages = newest_that_fit(messages.remove(&row.id).unwrap_or_default(), &mut room);
        Conversation {
            id: row.id,
            title: row.title,
            created_at: row.created_at,
            updated_at: row.updated_at,
            participants: participants.remove(&row.id).unwrap_or_default(),
            message_count: row.last_seq,
            messages_truncated: i64::try_from(messages.len()).is_ok_and(|n| n < row.last_seq),
            messages,
        }
    });
    Ok(conversations.collect())
}
