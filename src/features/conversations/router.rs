//! The routes of conversations: who may call them, what they take and answer.

use super::model::{
    AddParticipant, Conversation, CreateConversation, CreateMessage, ListedMessages, Message,
    ShownMessages, UpdateConversation,
};
use super::{service, stream};
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::http::{Json, Page, Path, Query};
use crate::security::{Allowed, Scope, permissions};
use crate::state::AppState;
use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below `/conversations`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_conversations, create_conversation))
        .routes(routes!(list_conversations_of_user))
        .routes(routes!(get_conversation, update_conversation, delete_conversation))
        .routes(routes!(list_messages, create_message))
        .routes(routes!(add_participant))
        .routes(routes!(remove_participant))
}

permissions! {
    ReadConversations: Scope::ConversationsRead, "read conversations",
    ChangeConversations: Scope::ConversationsWrite, "change conversations",
}

/// Begin a conversation.
#[utoipa::path(
    post, path = "", tag = "conversations", security(("api_key" = [])), request_body = CreateConversation,
    responses(
        (status = 201, body = Conversation),
        (status = 409, description = "A participant was deleted meanwhile", body = ErrorBody),
    ),
)]
async fn create_conversation(
    State(app): State<AppState>,
    _caller: Allowed<ChangeConversations>,
    Json(new): Json<CreateConversation>,
) -> Result<(StatusCode, Answer<Conversation>)> {
    Ok((StatusCode::CREATED, Answer(service::create(&app, &new).await?)))
}

/// List conversations, by id, each with its newest messages.
#[utoipa::path(
    get, path = "", tag = "conversations", security(("api_key" = [])), params(ListedMessages, Page),
    responses((status = 200, body = Vec<Conversation>)),
)]
async fn list_conversations(
    State(db): State<Db>,
    _caller: Allowed<ReadConversations>,
    Query((messages, page)): Query<(ListedMessages, Page)>,
) -> Result<Answer<Vec<Conversation>>> {
    service::list(&db, page, messages.message_limit).await.map(Answer)
}

/// List the conversations a user takes part in, by id; none for an unknown user.
#[utoipa::path(
    get, path = "/user/{user_id}", tag = "conversations", security(("api_key" = [])),
    params(("user_id" = i64, Path, minimum = 1, example = 1), ListedMessages, Page),
    responses((status = 200, body = Vec<Conversation>)),
)]
async fn list_conversations_of_user(
    State(db): State<Db>,
    _caller: Allowed<ReadConversations>,
    Path(user_id): Path<i64>,
    Query((messages, page)): Query<(ListedMessages, Page)>,
) -> Result<Answer<Vec<Conversation>>> {
    service::list_of_user(&db, user_id, page, messages.message_limit).await.map(Answer)
}

/// Get one conversation with its newest messages.
#[utoipa::path(
    get, path = "/{conversation_id}", tag = "conversations", security(("api_key" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), ShownMessages),
    responses((status = 200, body = Conversation), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn get_conversation(
    State(db): State<Db>,
    _caller: Allowed<ReadConversations>,
    Path(id): Path<i64>,
    Query(messages): Query<ShownMessages>,
) -> Result<Answer<Conversation>> {
    service::get(&db, id, messages.message_limit).await.map(Answer)
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

/// Append a message to a conversation.
#[utoipa::path(
    post, path = "/{conversation_id}/messages", tag = "conversations", security(("api_key" = [])), request_body = CreateMessage,
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
    _caller: Allowed<ChangeConversations>,
    Path(id): Path<i64>,
    Json(new): Json<CreateMessage>,
) -> Result<(StatusCode, Answer<Message>)> {
    Ok((StatusCode::CREATED, Answer(service::append(&app, id, new).await?)))
}

/// List the messages of a conversation, in the order in which they were appended.
#[utoipa::path(
    get, path = "/{conversation_id}/messages", tag = "conversations", security(("api_key" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), Page),
    responses((status = 200, body = Vec<Message>), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn list_messages(
    State(db): State<Db>,
    _caller: Allowed<ReadConversations>,
    Path(id): Path<i64>,
    Query(page): Query<Page>,
) -> Result<Response> {
    let first = Page { limit: page.limit.min(stream::BATCH), ..page };
    let messages = service::messages(&db, id, first).await?;
    Ok(stream::answer(db, id, page, messages))
}

/// Let a user take part in a conversation. Again is as good as once.
#[utoipa::path(
    post, path = "/{conversation_id}/participants", tag = "conversations", security(("api_key" = [])), request_body = AddParticipant,
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 201, body = Conversation),
        (status = 404, description = "No such conversation or user", body = ErrorBody),
    ),
)]
async fn add_participant(
    State(app): State<AppState>,
    _caller: Allowed<ChangeConversations>,
    Path(id): Path<i64>,
    Json(user_id): Json<AddParticipant>,
) -> Result<(StatusCode, Answer<Conversation>)> {
    Ok((StatusCode::CREATED, Answer(service::add_participant(&app, id, user_id).await?)))
}

/// Let a user no longer take part in a conversation; what they said stays.
#[utoipa::path(
    delete, path = "/{conversation_id}/participants/{user_id}", tag = "conversations", security(("api_key" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), ("user_id" = i64, Path, minimum = 1, example = 3)),
    responses((status = 200, body = Conversation), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn remove_participant(
    State(app): State<AppState>,
    _caller: Allowed<ChangeConversations>,
    Path((id, user_id)): Path<(i64, i64)>,
) -> Result<Answer<Conversation>> {
    service::remove_participant(&app, id, user_id).await.map(Answer)
}
