//! Participant operations.

use super::commit::{NOT_FOUND, commit};
use crate::core::error::{Error, Result};
use crate::db::{Db, Tx};
use crate::features::conversations::model::{MAX_PARTICIPANTS, NewParticipant, Participant};
use crate::features::conversations::repository::{self, participants};
use crate::http::{ListPage, OldestFirst, Window};
use crate::security::Visibility;
use crate::state::AppState;

const NO_CONVERSATION_OR_USER: Error = Error::NotFound("Conversation or user");

/// The error for a signed-in user who names other users by id.
pub(super) fn by_name_only() -> Error {
    Error::Forbidden("Signed-in users must name participants by username".into())
}

/// A page of the participants of conversation `id`, sorted by user id.
pub async fn list(
    db: &Db,
    id: i64,
    visibility: Visibility,
    window: Window<OldestFirst>,
) -> Result<ListPage<Participant<'static>>> {
    let slice = window.resolve(("participants", id))?;
    let mut snapshot = db.snapshot().await?;
    if !repository::exists(&mut snapshot, id, visibility).await? {
        return Err(NOT_FOUND);
    }
    let rows = participants::list(&mut snapshot, id, visibility, &slice).await?;
    Ok(slice.page(rows, |participant| participant.id))
}

/// Adds a participant. Idempotent. Fails with 409 if the conversation has the maximum number.
pub async fn add(
    app: &AppState,
    id: i64,
    visibility: Visibility,
    participant: NewParticipant,
) -> Result<()> {
    if let (Visibility::ParticipantOf(own), NewParticipant::Id(user_id)) =
        (visibility, &participant)
        && own != *user_id
    {
        return Err(by_name_only());
    }
    let mut tx = app.db.begin().await?;
    if !repository::lock(&mut tx, id, visibility).await? {
        return Err(NO_CONVERSATION_OR_USER);
    }
    let user_id = id_of(&mut tx, participant).await?;
    repository::touch(&mut tx, id, app.clock.now()).await?;
    let added = match participants::insert(&mut tx, id, &[user_id]).await {
        // On Postgres, the user was deleted concurrently.
        Err(error) if Error::is_foreign_key_violation(&error) => {
            return Err(NO_CONVERSATION_OR_USER);
        }
        added => added?,
    };
    if added.is_empty() {
        if !participants::user_exists(&mut tx, user_id).await? {
            return Err(NO_CONVERSATION_OR_USER);
        }
        return Ok(tx.rollback().await?);
    }
    let most = i64::try_from(MAX_PARTICIPANTS).unwrap_or(i64::MAX);
    if participants::count(&mut tx, id).await? > most {
        let sentence = format!("The conversation has the maximum of {most} participants");
        return Err(Error::Conflict(sentence.into()));
    }
    commit(app, tx, id).await
}

async fn id_of(tx: &mut Tx, participant: NewParticipant) -> Result<i64> {
    match participant {
        NewParticipant::Id(id) => Ok(id),
        NewParticipant::Name(name) => {
            let found = repository::accounts(tx, [&name]).await?;
            found.first().map(|(_, account)| account.id).ok_or(NO_CONVERSATION_OR_USER)
        }
    }
}

/// Removes a participant; their messages are kept. A signed-in user may only remove themselves.
/// Idempotent.
pub async fn remove(app: &AppState, id: i64, visibility: Visibility, user_id: i64) -> Result<()> {
    let mut tx = app.db.begin().await?;
    if !repository::lock(&mut tx, id, visibility).await? {
        return Err(NOT_FOUND);
    }
    if visibility.user_id().is_some_and(|own| own != user_id) {
        return Err(Error::Forbidden("A signed-in user can only leave, not remove others".into()));
    }
    repository::touch(&mut tx, id, app.clock.now()).await?;
    if participants::delete(&mut tx, id, user_id).await? {
        return commit(app, tx, id).await;
    }
    Ok(tx.rollback().await?)
}
