//! Responses of several routes.

use super::permissions::ChangeConversations;
use crate::core::error::Result;
use crate::features::conversations::model::Conversation;
use crate::features::conversations::service;
use crate::http::{OrNoContent, RawJson};
use crate::security::AllowedOrUser;
use crate::state::AppState;

/// The response to a change of conversation `id`: empty for a key without `conversations:read`.
pub(super) async fn after_change(
    app: &AppState,
    caller: &AllowedOrUser<ChangeConversations>,
    id: i64,
) -> Result<OrNoContent<RawJson<Conversation<'static>>>> {
    if !caller.may_read() {
        return Ok(OrNoContent(None));
    }
    let conversation = service::get_changed(&app.db, id, caller.access.visibility()).await?;
    Ok(OrNoContent(Some(conversation)))
}
