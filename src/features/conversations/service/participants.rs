//! The rules of who takes part.

use super::{NOT_FOUND, commit};
use crate::core::error::{Error, Result};
use crate::db::{Db, Tx};
use crate::features::conversations::model::{Joining, MAX_PARTICIPANTS, Participant};
use crate::features::conversations::repository::{self, participants};
use crate::http::{Listed, OldestFirst, Window};
use crate::security::Reach;
use crate::state::AppState;

const NEITHER: Error = Error::NotFound("Conversation or user");

/// What somebody logged in is told who names others by their ids.
pub(super) fn by_name_only() -> Error {
    Error::Forbidden("Name the users who take part by their usernames".into())
}

/// A page of the participants of conversation `id`, by id.
pub async fn list(
    db: &Db,
    id: i64,
    reach: Reach,
    window: Window<OldestFirst>,
) -> Result<Listed<Participant<'static>>> {
    let slice = window.resolve(("participants", id))?;
    let mut snapshot = db.snapshot().await?;
    if !repository::exists(&mut snapshot, id, reach).await? {
        return Err(NOT_FOUND);
    }
    let rows = participants::list(&mut snapshot, id, reach, &slice).await?;
    Ok(slice.page(rows, |participant| participant.id))
}

/// Adds a participant. Idempotent. Fails with 409 where the conversation has as many as it may.
pub async fn add(app: &AppState, id: i64, reach: Reach, joining: Joining) -> Result<()> {
    if let (Reach::OwnOf(own), Joining::Id(user_id)) = (reach, &joining)
        && own != *user_id
    {
        return Err(by_name_only());
    }
    let mut tx = app.db.begin().await?;
    if !repository::lock(&mut tx, id, reach).await? {
        return Err(NEITHER);
    }
    let user_id = id_of(&mut tx, joining).await?;
    repository::touch(&mut tx, id, app.clock.now()).await?;
    let added = match participants::insert(&mut tx, id, &[user_id]).await {
        // On Postgres, the user was deleted while we looked.
        Err(error) if Error::is_foreign_key_violation(&error) => return Err(NEITHER),
        added => added?,
    };
    if added.is_empty() {
        if !participants::user_exists(&mut tx, user_id).await? {
            return Err(NEITHER);
        }
        return Ok(tx.rollback().await?);
    }
    let most = i64::try_from(MAX_PARTICIPANTS).unwrap_or(i64::MAX);
    if participants::count(&mut tx, id).await? > most {
        let sentence = format!("The conversation has {most} participants, which is the most");
        return Err(Error::Conflict(sentence.into()));
    }
    commit(app, tx, id).await
}

async fn id_of(tx: &mut Tx, joining: Joining) -> Result<i64> {
    match joining {
        Joining::Id(id) => Ok(id),
        Joining::Name(name) => {
            let found = repository::accounts(tx, [&name]).await?;
            found.first().map(|(_, account)| account.id).ok_or(NEITHER)
        }
    }
}

/// Removes a participant; their messages are kept. A signed-in user may only remove themselves.
/// Idempotent.
pub async fn remove(app: &AppState, id: i64, reach: Reach, user_id: i64) -> Result<()> {
    let mut tx = app.db.begin().await?;
    if !repository::lock(&mut tx, id, reach).await? {
        return Err(NOT_FOUND);
    }
    if reach.user_id().is_some_and(|own| own != user_id) {
        return Err(Error::Forbidden("A logged-in user may only leave, not remove others".into()));
    }
    repository::touch(&mut tx, id, app.clock.now()).await?;
    if participants::delete(&mut tx, id, user_id).await? {
        return commit(app, tx, id).await;
    }
    Ok(tx.rollback().await?)
}
