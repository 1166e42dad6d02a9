//! Routes for participants.

use super::permissions::{ChangeConversations, ReadConversations};
use super::response::after_change;
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::features::conversations::model::{AddParticipant, Conversation, Participant};
use crate::features::conversations::service::participants;
use crate::http::{Json, ListPage, OldestFirst, OrNoContent, Path, Query, RawJson, Window};
use crate::security::{Access, AllowedOrUser};
use crate::state::AppState;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_participants, add_participant))
        .routes(routes!(remove_participant))
}

/// List participants.
///
/// Sorted by user id. The conversation itself contains only the first 100.
#[utoipa::path(
    get, path = "/{conversation_id}/participants", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), Window<OldestFirst>),
    responses(
        (status = 200, body = Vec<Participant>),
        (status = 404, description = "No such conversation", body = ErrorBody),
    ),
)]
async fn list_participants(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<ReadConversations>,
    Path(id): Path<i64>,
    Query(window): Query<Window<OldestFirst>>,
) -> Result<ListPage<Participant<'static>>> {
    participants::list(&db, id, access.visibility(), window).await
}

/// Add a participant. Idempotent.
#[utoipa::path(
    post, path = "/{conversation_id}/participants", tag = "conversations",
    security(("api_key" = []), ("session" = [])), request_body = AddParticipant,
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 201, body = Conversation),
        (status = 204, description = "Added; the API key lacks `conversations:read`"),
        (status = 404, description = "No such conversation or user", body = ErrorBody),
        (status = 409, description = "The conversation already has 1000 participants", body = ErrorBody),
    ),
)]
async fn add_participant(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Path(id): Path<i64>,
    Json(participant): Json<AddParticipant>,
) -> Result<OrNoContent<(StatusCode, RawJson<Conversation<'static>>)>> {
    participants::add(&app, id, caller.access.visibility(), participant).await?;
    let OrNoContent(conversation) = after_change(&app, &caller, id).await?;
    Ok(OrNoContent(conversation.map(|conversation| (StatusCode::CREATED, conversation))))
}

/// Remove a participant. Their messages are kept. Idempotent.
///
/// A signed-in user can remove only themselves, which returns 204: they no longer have access to
/// the conversation.
#[utoipa::path(
    delete, path = "/{conversation_id}/participants/{user_id}", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), ("user_id" = i64, Path, minimum = 1, example = 3)),
    responses(
        (status = 200, body = Conversation),
        (status = 204, description = "Removed; the user left, or the API key lacks `conversations:read`"),
        (status = 404, description = "No such conversation", body = ErrorBody),
    ),
)]
async fn remove_participant(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Path((id, user_id)): Path<(i64, i64)>,
) -> Result<OrNoContent<RawJson<Conversation<'static>>>> {
    participants::remove(&app, id, caller.access.visibility(), user_id).await?;
    match caller.access {
        Access::Key(_) => after_change(&app, &caller, id).await,
        Access::User(_) => Ok(OrNoContent(None)),
    }
}
