//! The routes of who takes part.

use super::ChangeConversations;
use crate::core::error::{ErrorBody, Result};
use crate::features::conversations::model::{AddParticipant, Conversation};
use crate::features::conversations::service::participants;
use crate::http::{Json, Path, Written};
use crate::security::AllowedOrUser;
use crate::state::AppState;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(add_participant)).routes(routes!(remove_participant))
}

/// Let a user take part in a conversation. Again is as good as once.
#[utoipa::path(
    post, path = "/{conversation_id}/participants", tag = "conversations",
    security(("api_key" = []), ("session" = [])), request_body = AddParticipant,
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 201, body = Conversation),
        (status = 404, description = "No such conversation or user", body = ErrorBody),
    ),
)]
async fn add_participant(
    State(app): State<AppState>,
    AllowedOrUser { access, .. }: AllowedOrUser<ChangeConversations>,
    Path(id): Path<i64>,
    Json(joining): Json<AddParticipant>,
) -> Result<(StatusCode, Written<Conversation<'static>>)> {
    Ok((StatusCode::CREATED, participants::add(&app, id, access.reach(), joining).await?))
}

/// Let a user no longer take part in a conversation; what they said stays.
///
/// Somebody logged in may leave, which answers 204: the conversation is not theirs to see any more.
#[utoipa::path(
    delete, path = "/{conversation_id}/participants/{user_id}", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), ("user_id" = i64, Path, minimum = 1, example = 3)),
    responses(
        (status = 200, body = Conversation),
        (status = 204, description = "Left"),
        (status = 404, description = "No such conversation", body = ErrorBody),
    ),
)]
async fn remove_participant(
    State(app): State<AppState>,
    AllowedOrUser { access, .. }: AllowedOrUser<ChangeConversations>,
    Path((id, user_id)): Path<(i64, i64)>,
) -> Result<Response> {
    Ok(match participants::remove(&app, id, access.reach(), user_id).await? {
        Some(conversation) => conversation.into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}
