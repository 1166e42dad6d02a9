//! The rules of messages.

use super::{NOT_FOUND, commit};
use crate::core::error::{Error, Result};
use crate::db::Db;
use crate::features::conversations::model::{Message, NewMessage};
use crate::features::conversations::repository::{self, messages, participants};
use crate::http::Page;
use crate::security::Reach;
use crate::state::AppState;

const ROLES: [&str; 3] = ["user", "assistant", "system"];

/// Appends a message. Its number is taken in the same transaction, so messages are in the order in
/// which they were accepted, on every reader's screen.
pub async fn append(app: &AppState, id: i64, reach: Reach, mut new: NewMessage) -> Result<Message> {
    attribute(reach, &mut new)?;
    let mut tx = app.db.begin().await?;
    let next = messages::next_seqs(&mut tx, id, reach, 1, app.clock.now()).await?;
    let (seq, created_at) = next.ok_or(NOT_FOUND)?;
    if let Some(user_id) = new.user_id {
        let found = participants::find(&mut tx, id, user_id, reach).await?;
        found.ok_or_else(stranger)?;
    }
    let message_id = messages::insert(&mut tx, id, seq, &new, created_at).await?;
    let message = messages::find(&mut tx, id, message_id, reach).await?.ok_or(NOT_FOUND)?;
    commit(app, tx, id).await?;
    Ok(message)
}

/// Says who speaks: somebody logged in, only for themselves and as nobody else.
fn attribute(reach: Reach, new: &mut NewMessage) -> Result<()> {
    if !ROLES.contains(&new.role.as_str()) {
        return Err(Error::Refused("Role must be 'user', 'assistant', or 'system'".into()));
    }
    let Some(own) = reach.user_id() else { return Ok(()) };
    if new.role != "user" {
        return Err(Error::Forbidden("A logged-in user may only post as 'user'".into()));
    }
    if new.user_id.is_some_and(|user_id| user_id != own) {
        return Err(Error::Forbidden("A logged-in user may only post as themselves".into()));
    }
    new.user_id = Some(own);
    Ok(())
}

fn stranger() -> Error {
    Error::Forbidden("User is not a participant in this conversation".into())
}

/// A page of messages, in the order in which they were appended.
pub async fn list(db: &Db, id: i64, reach: Reach, page: Page) -> Result<Vec<Message>> {
    let mut snapshot = db.snapshot().await?;
    if !repository::exists(&mut snapshot, id, reach).await? {
        return Err(NOT_FOUND);
    }
    // Messages are numbered without gaps, so leaving out some is beginning after their numbers.
    Ok(messages::list(&mut snapshot, id, reach, page.skip, page.limit).await?)
}
