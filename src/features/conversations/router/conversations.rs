//! Routes for whole conversations.

use super::permissions::{ChangeConversations, ReadConversations};
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::features::conversations::model::{
    Conversation, ConversationChanges, ConversationOrder, CreateConversation, CreatedConversation,
    ListedMessages, PatchConversation, ShownMessages, UpdateConversation,
};
use crate::features::conversations::service;
use crate::http::{Idempotent, Json, Link, OrNoContent, Path, Query, RawJson, Window};
use crate::security::{Allowed, AllowedOrUser, Visibility};
use crate::state::AppState;
use axum::Json as JsonResponse;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_conversations, create_conversation))
        .routes(routes!(list_conversations_of_user))
        .routes(routes!(
            get_conversation,
            update_conversation,
            patch_conversation,
            delete_conversation
        ))
}

/// Create a conversation.
///
/// A signed-in user becomes a participant. With an `Idempotency-Key`, a repeated request creates no
/// second conversation. An API key without `conversations:read` gets only the id.
#[utoipa::path(
    post, path = "", tag = "conversations", security(("api_key" = []), ("session" = [])), request_body = CreateConversation,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "Unique for each conversation; visible ASCII characters; kept for one day")),
    responses(
        (status = 201, body = CreatedConversation),
        (status = 404, description = "The conversation that this `Idempotency-Key` created was deleted", body = ErrorBody),
        (status = 409, description = "A participant was deleted during the request", body = ErrorBody),
    ),
)]
async fn create_conversation(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Idempotent(new, record): Idempotent<CreateConversation>,
) -> Result<Response> {
    let visibility = caller.access.visibility();
    let record = record.map(|key| key.of(caller.access.credential()));
    let made = service::create(&app, visibility, &new, record.as_ref()).await?;
    Ok(if caller.may_read() {
        made.and_then(async |id| service::get_created(&app.db, id, visibility).await)
            .await?
            .into_response()
    } else {
        let made = made.and_then(async |id| service::get_id(&app.db, id, visibility).await).await?;
        made.map(JsonResponse).into_response()
    })
}

/// List conversations.
///
/// A signed-in user gets the conversations in which they are a participant, an API key all
/// conversations; each with its newest messages. Sorted by id, or by the time of the newest message
/// with `order=recent`.
#[utoipa::path(
    get, path = "", tag = "conversations", security(("api_key" = []), ("session" = [])), params(ListedMessages, Window<ConversationOrder>),
    responses((status = 200, body = Vec<Conversation>)),
)]
async fn list_conversations(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<ReadConversations>,
    Query((messages, window)): Query<(ListedMessages, Window<ConversationOrder>)>,
) -> Result<(Link, RawJson<Vec<Conversation<'static>>>)> {
    service::list(&db, access.visibility(), window, messages.message_limit).await
}

/// List a user's conversations.
///
/// The conversations in which the user is a participant, each with its newest messages. The list is
/// empty for an unknown user. A signed-in user can list only their own.
#[utoipa::path(
    get, path = "/user/{user_id}", tag = "conversations", security(("api_key" = []), ("session" = [])),
    params(("user_id" = i64, Path, minimum = 1, example = 1), ListedMessages, Window<ConversationOrder>),
    responses((status = 200, body = Vec<Conversation>)),
)]
async fn list_conversations_of_user(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<ReadConversations>,
    Path(user_id): Path<i64>,
    Query((messages, window)): Query<(ListedMessages, Window<ConversationOrder>)>,
) -> Result<(Link, RawJson<Vec<Conversation<'static>>>)> {
    service::list_of_user(&db, user_id, access.visibility(), window, messages.message_limit).await
}

/// Get a conversation with its newest messages.
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
) -> Result<RawJson<Conversation<'static>>> {
    service::get(&db, id, access.visibility(), messages.message_limit).await
}

/// Update a conversation. Only the fields sent change.
#[utoipa::path(
    put, path = "/{conversation_id}", tag = "conversations", security(("api_key" = [])), request_body = UpdateConversation,
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = Conversation),
        (status = 204, description = "Changed, by a key without `conversations:read`"),
        (status = 404, description = "No such conversation", body = ErrorBody),
    ),
)]
async fn update_conversation(
    State(app): State<AppState>,
    caller: Allowed<ChangeConversations>,
    Path(id): Path<i64>,
    Json(changes): Json<UpdateConversation>,
) -> Result<OrNoContent<RawJson<Conversation<'static>>>> {
    change_conversation(&app, &caller, id, &changes).await
}

/// Patch a conversation.
///
/// The body is a JSON Merge Patch (RFC 7396): absent fields stay unchanged, null clears a field, and
/// `metadata` is merged into the stored metadata.
#[utoipa::path(
    patch, path = "/{conversation_id}", tag = "conversations", security(("api_key" = [])),
    request_body(content((PatchConversation = "application/json"), (PatchConversation = "application/merge-patch+json"))),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = Conversation),
        (status = 204, description = "Changed, by a key without `conversations:read`"),
        (status = 404, description = "No such conversation", body = ErrorBody),
    ),
)]
async fn patch_conversation(
    State(app): State<AppState>,
    caller: Allowed<ChangeConversations>,
    Path(id): Path<i64>,
    Json(changes): Json<PatchConversation>,
) -> Result<OrNoContent<RawJson<Conversation<'static>>>> {
    change_conversation(&app, &caller, id, &changes).await
}

/// Changes a conversation. Returns it only if the caller may read it.
async fn change_conversation(
    app: &AppState,
    caller: &Allowed<ChangeConversations>,
    id: i64,
    changes: &ConversationChanges,
) -> Result<OrNoContent<RawJson<Conversation<'static>>>> {
    service::update(app, id, changes).await?;
    if !caller.may_read() {
        return Ok(OrNoContent(None));
    }
    service::get_changed(&app.db, id, Visibility::All)
        .await
        .map(|changed| OrNoContent(Some(changed)))
}

/// Delete a conversation with its messages.
///
/// It is inaccessible immediately. The rows of a long conversation are removed within about a
/// minute.
#[utoipa::path(
    delete, path = "/{conversation_id}", tag = "conversations", security(("api_key" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 204, description = "Deleted"), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn delete_conversation(
    State(app): State<AppState>,
    caller: Allowed<ChangeConversations>,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    service::delete(&app, &(&caller.actor).into(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
