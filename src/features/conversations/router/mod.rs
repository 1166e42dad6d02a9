//! The routes of conversations: who may call them, what they take and answer.

mod messages;
mod participants;

use super::model::{
    Conversation, CreateConversation, ListedMessages, ShownMessages, UpdateConversation,
};
use super::{service, transfer};
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::http::{Json, Page, Path, Query};
use crate::security::{Allowed, AllowedOrUser, Scope, permissions};
use crate::state::AppState;
use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below `/conversations`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_conversations, create_conversation))
        .routes(routes!(list_conversations_of_user))
        .routes(routes!(get_conversation, update_conversation, delete_conversation))
        .merge(messages::routes())
        .merge(participants::routes())
        .merge(transfer::routes())
}

permissions! {
    ReadConversations: Scope::ConversationsRead, "read conversations",
    ChangeConversations: Scope::ConversationsWrite, "change conversations",
}

/// Begin a conversation.
#[utoipa::path(
    post, path = "", tag = "conversations", security(("api_key" = []), ("session" = [])), request_body = CreateConversation,
    responses(
        (status = 201, body = Conversation),
        (status = 409, description = "A participant was deleted meanwhile", body = ErrorBody),
    ),
)]
async fn create_conversation(
    State(app): State<AppState>,
    AllowedOrUser { access, .. }: AllowedOrUser<ChangeConversations>,
    Json(new): Json<CreateConversation>,
) -> Result<(StatusCode, Answer<Conversation>)> {
    Ok((StatusCode::CREATED, Answer(service::create(&app, access.reach(), &new).await?)))
}

/// List conversations, by id, each with its newest messages: those a user takes part in, or all for
/// a key.
#[utoipa::path(
    get, path = "", tag = "conversations", security(("api_key" = []), ("session" = [])), params(ListedMessages, Page),
    responses((status = 200, body = Vec<Conversation>)),
)]
async fn list_conversations(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<ReadConversations>,
    Query((messages, page)): Query<(ListedMessages, Page)>,
) -> Result<Answer<Vec<Conversation>>> {
    service::list(&db, access.reach(), page, messages.message_limit).await.map(Answer)
}

/// List the conversations a user takes part in, by id; none for an unknown user.
#[utoipa::path(
    get, path = "/user/{user_id}", tag = "conversations", security(("api_key" = []), ("session" = [])),
    params(("user_id" = i64, Path, minimum = 1, example = 1), ListedMessages, Page),
    responses((status = 200, body = Vec<Conversation>)),
)]
async fn list_conversations_of_user(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<ReadConversations>,
    Path(user_id): Path<i64>,
    Query((messages, page)): Query<(ListedMessages, Page)>,
) -> Result<Answer<Vec<Conversation>>> {
    let conversations =
        service::list_of_user(&db, user_id, access.reach(), page, messages.message_limit);
    conversations.await.map(Answer)
}

/// Get one conversation with its newest messages.
#[utoipa::path(
    get, path = "/{conversation_id}", tag = "conversations", security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), ShownMessages),
    responses((status = 200, body = Conversation), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn get_conversation(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<ReadConversations>,
    Path(id): Path<i64>,
    Query(messages): Query<ShownMessages>,
) -> Result<Answer<Conversation>> {
    service::get(&db, id, access.reach(), messages.message_limit).await.map(Answer)
}

/// Change a conversation. Only the fields sent change.
#[utoipa::path(
    put, path = "/{conversation_id}", tag = "conversations", security(("api_key" = [])), request_body = UpdateConversation,
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 200, body = Conversation), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn update_conversation(
    State(app): State<AppState>,
    _caller: Allowed<ChangeConversations>,
    Path(id): Path<i64>,
    Json(changes): Json<UpdateConversation>,
) -> Result<Answer<Conversation>> {
    service::update(&app, id, &changes).await.map(Answer)
}

/// Delete a conversation with its messages.
#[utoipa::path(
    delete, path = "/{conversation_id}", tag = "conversations", security(("api_key" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 204, description = "Deleted"), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn delete_conversation(
    State(app): State<AppState>,
    _caller: Allowed<ChangeConversations>,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    service::delete(&app, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
