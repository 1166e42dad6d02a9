//! The routes of who takes part.

use super::{ChangeConversations, ReadConversations, after_change};
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::features::conversations::model::{AddParticipant, Conversation, Participant};
use crate::features::conversations::service::participants;
use crate::http::{Json, Listed, OldestFirst, OrNoContent, Path, Query, Window, Written};
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

/// List the participants of a conversation, by id.
///
/// The conversation itself shows the first 100 of them.
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
) -> Result<Listed<Participant<'static>>> {
    participants::list(&db, id, access.reach(), window).await
}

/// Add a participant. Idempotent.
#[utoipa::path(
    post, path = "/{conversation_id}/participants", tag = "conversations",
    security(("api_key" = []), ("session" = [])), request_body = AddParticipant,
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 201, body = Conversation),
        (status = 204, description = "Added, by a key without `conversations:read`"),
        (status = 404, description = "No such conversation or user", body = ErrorBody),
        (status = 409, description = "The conversation has 1000 participants, which is the most", body = ErrorBody),
    ),
)]
async fn add_participant(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Path(id): Path<i64>,
    Json(joining): Json<AddParticipant>,
) -> Result<OrNoContent<(StatusCode, Written<Conversation<'static>>)>> {
    participants::add(&app, id, caller.access.reach(), joining).await?;
    let OrNoContent(conversation) = after_change(&app, &caller, id).await?;
    Ok(OrNoContent(conversation.map(|conversation| (StatusCode::CREATED, conversation))))
}

/// Remove a participant. Their messages are kept. Idempotent.
///
/// A signed-in user can remove only themselves, which answers 204: they no longer have access to the
/// conversation.
#[utoipa::path(
    delete, path = "/{conversation_id}/participants/{user_id}", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), ("user_id" = i64, Path, minimum = 1, example = 3)),
    responses(
        (status = 200, body = Conversation),
        (status = 204, description = "Removed, by a key without `conversations:read` or by the user who leaves"),
        (status = 404, description = "No such conversation", body = ErrorBody),
    ),
)]
async fn remove_participant(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Path((id, user_id)): Path<(i64, i64)>,
) -> Result<OrNoContent<Written<Conversation<'static>>>> {
    participants::remove(&app, id, caller.access.reach(), user_id).await?;
    match caller.access {
        Access::Key(_) => after_change(&app, &caller, id).await,
        Access::User(_) => Ok(OrNoContent(None)),
    }
}
