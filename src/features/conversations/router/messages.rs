//! Routes for messages.

use super::permissions::{ChangeConversations, ReadConversations};
use crate::audit::Origin;
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::features::conversations::model::{CreateMessage, CreateMessages, EditMessage, Message};
use crate::features::conversations::service::messages::{self, Author};
use crate::features::conversations::service::parts::Parts;
use crate::features::conversations::stream;
use crate::http::{
    Creation, Idempotent, IfMatch, Json, JsonList, ListPage, OldestFirst, OrNoContent, Path, Query,
    VersionTag, Window,
};
use crate::security::AllowedOrUser;
use crate::state::AppState;
use axum::Json as JsonResponse;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_messages, create_message))
        .routes(routes!(create_messages))
        .routes(routes!(get_message, edit_message, delete_message))
}

/// Append a message to a conversation.
///
/// With an `Idempotency-Key`, a repeated request appends no second message. It returns the first
/// message in its current state. For an API key without `conversations:read`, the response contains
/// the fields it sent, the ids and the version; `user` is null.
#[utoipa::path(
    post, path = "/{conversation_id}/messages", tag = "conversations",
    security(("api_key" = []), ("session" = [])), request_body = CreateMessage,
    params(
        ("conversation_id" = i64, Path, minimum = 1, example = 1),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Unique for each message; visible ASCII characters; kept for one day"),
    ),
    responses(
        (status = 201, body = Message, headers(
            ("ETag" = String, description = "The message's version"),
            ("Idempotency-Replayed" = String, description = "`true` if an earlier request appended it"),
        )),
        (status = 400, description = "Unknown role", body = ErrorBody,
            example = json!({"detail": "Role must be 'user', 'assistant', or 'system'"})),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 409, description = "The user was deleted during the request", body = ErrorBody),
    ),
)]
async fn create_message(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Path(id): Path<i64>,
    Idempotent(new, record): Idempotent<CreateMessage>,
) -> Result<Response> {
    let record = record.map(|key| key.of(caller.access.credential()));
    let author = Author { visibility: caller.access.visibility(), may_read: caller.may_read() };
    let made = messages::append(&app, id, author, new, record.as_ref()).await?;
    let (Creation::Created(message) | Creation::Replayed(message)) = &made;
    Ok((VersionTag(message.version), made.map(JsonResponse)).into_response())
}

/// Append a batch of messages.
///
/// Appends all of them or none, in their order. No other message is appended between them. The body
/// limit is 16 MiB. `Idempotency-Key` and keys without `conversations:read` are handled as for a
/// single message.
#[utoipa::path(
    post, path = "/{conversation_id}/messages/batch", tag = "conversations",
    security(("api_key" = []), ("session" = [])), request_body = CreateMessages,
    params(
        ("conversation_id" = i64, Path, minimum = 1, example = 1),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Unique for each batch; visible ASCII characters; kept for one day"),
    ),
    responses(
        (status = 201, body = Vec<Message>, headers(
            ("Idempotency-Replayed" = String, description = "`true` if an earlier request appended them"),
        )),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 409, description = "A user was deleted during the request", body = ErrorBody),
    ),
)]
async fn create_messages(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Path(id): Path<i64>,
    Idempotent(new, record): Idempotent<CreateMessages>,
) -> Result<Creation<JsonList<Message<'static>>>> {
    let record = record.map(|key| key.of(caller.access.credential()));
    let author = Author { visibility: caller.access.visibility(), may_read: caller.may_read() };
    let made = messages::append_all(&app, id, author, new, record.as_ref()).await?;
    Ok(made.map(JsonList))
}

/// List messages.
///
/// Sorted by `seq`, oldest first. With `order=desc`, newest first.
#[utoipa::path(
    get, path = "/{conversation_id}/messages", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), Window<OldestFirst>),
    responses((status = 200, body = Vec<Message>), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn list_messages(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<ReadConversations>,
    Path(id): Path<i64>,
    Query(window): Query<Window<OldestFirst>>,
) -> Result<Response> {
    let visibility = access.visibility();
    let ListPage { entries, link } = messages::numbers(&db, id, visibility, window).await?;
    let parts = Parts::of_numbers(db, id, visibility, &entries);
    Ok((link, stream::answer(parts).await?).into_response())
}

/// Get a message.
#[utoipa::path(
    get, path = "/{conversation_id}/messages/{message_id}", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), ("message_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = Message, headers(("ETag" = String, description = "The message's version"))),
        (status = 404, description = "No such conversation or message", body = ErrorBody),
    ),
)]
async fn get_message(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<ReadConversations>,
    Path((id, message_id)): Path<(i64, i64)>,
) -> Result<Response> {
    let message = messages::get(&db, id, message_id, access.visibility()).await?;
    Ok((VersionTag(message.version), JsonResponse(message)).into_response())
}

/// Edit a message.
///
/// A signed-in user can edit their own messages, an API key any message. Only the fields sent
/// change. With `If-Match`, the message changes only if its `ETag` still matches; otherwise the
/// response is 412.
#[utoipa::path(
    patch, path = "/{conversation_id}/messages/{message_id}", tag = "conversations",
    security(("api_key" = []), ("session" = [])), request_body = EditMessage,
    params(
        ("conversation_id" = i64, Path, minimum = 1, example = 1),
        ("message_id" = i64, Path, minimum = 1, example = 1),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the version to change"),
    ),
    responses(
        (status = 200, body = Message, headers(("ETag" = String, description = "The new version"))),
        (status = 204, description = "Changed; the API key lacks `conversations:read`",
            headers(("ETag" = String, description = "The new version"))),
        (status = 403, description = "Another user's message, or missing permission", body = ErrorBody),
        (status = 404, description = "No such conversation or message", body = ErrorBody),
        (status = 409, description = "The message was deleted", body = ErrorBody),
        (status = 412, description = "The message has another version", body = ErrorBody),
    ),
)]
async fn edit_message(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Path((id, message_id)): Path<(i64, i64)>,
    if_match: IfMatch,
    Json(changes): Json<EditMessage>,
) -> Result<Response> {
    let (visibility, by) = (caller.access.visibility(), Origin::of_key(&caller.access));
    let message =
        messages::edit(&app, id, message_id, visibility, by.as_ref(), &if_match, &changes).await?;
    let version = VersionTag(message.version);
    Ok((version, OrNoContent(caller.may_read().then_some(JsonResponse(message)))).into_response())
}

/// Delete a message.
///
/// A signed-in user can delete their own messages, an API key any message. The content and metadata
/// are erased; the message keeps its place (`seq`) in the conversation. Idempotent.
#[utoipa::path(
    delete, path = "/{conversation_id}/messages/{message_id}", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(
        ("conversation_id" = i64, Path, minimum = 1, example = 1),
        ("message_id" = i64, Path, minimum = 1, example = 1),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the version to delete"),
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 403, description = "Another user's message, or missing permission", body = ErrorBody),
        (status = 404, description = "No such conversation or message", body = ErrorBody),
        (status = 412, description = "The message has another version", body = ErrorBody),
    ),
)]
async fn delete_message(
    State(app): State<AppState>,
    AllowedOrUser { access, .. }: AllowedOrUser<ChangeConversations>,
    Path((id, message_id)): Path<(i64, i64)>,
    if_match: IfMatch,
) -> Result<StatusCode> {
    let by = Origin::of_key(&access);
    messages::delete(&app, id, message_id, access.visibility(), by.as_ref(), &if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}
