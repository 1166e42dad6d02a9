//! The routes of messages.

use super::{ChangeConversations, ReadConversations};
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::features::conversations::model::{CreateMessage, Message};
use crate::features::conversations::service::messages;
use crate::features::conversations::stream;
use crate::http::{Json, Page, Path, Query};
use crate::security::AllowedOrUser;
use crate::state::AppState;
use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_messages, create_message))
}

/// Append a message to a conversation.
#[utoipa::path(
    post, path = "/{conversation_id}/messages", tag = "conversations",
    security(("api_key" = []), ("session" = [])), request_body = CreateMessage,
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 201, body = Message),
        (status = 400, description = "No such role", body = ErrorBody,
            example = json!({"detail": "Role must be 'user', 'assistant', or 'system'"})),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 409, description = "The user was deleted meanwhile", body = ErrorBody),
    ),
)]
async fn create_message(
    State(app): State<AppState>,
    AllowedOrUser { access, .. }: AllowedOrUser<ChangeConversations>,
    Path(id): Path<i64>,
    Json(new): Json<CreateMessage>,
) -> Result<(StatusCode, Answer<Message>)> {
    Ok((StatusCode::CREATED, Answer(messages::append(&app, id, access.reach(), new).await?)))
}

/// List the messages of a conversation, in the order in which they were appended.
#[utoipa::path(
    get, path = "/{conversation_id}/messages", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), Page),
    responses((status = 200, body = Vec<Message>), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn list_messages(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<ReadConversations>,
    Path(id): Path<i64>,
    Query(page): Query<Page>,
) -> Result<Response> {
    let first = Page { limit: page.limit.min(stream::BATCH), ..page };
    let reach = access.reach();
    let messages = messages::list(&db, id, reach, first).await?;
    Ok(stream::answer(db, id, reach, page, messages))
}
