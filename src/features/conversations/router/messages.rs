//! The routes of messages.

use super::{ChangeConversations, ReadConversations};
use crate::audit::Origin;
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::features::conversations::model::{CreateMessage, CreateMessages, EditMessage, Message};
use crate::features::conversations::service::messages::{self, Author};
use crate::features::conversations::stream;
use crate::http::{
    Idempotent, IfMatch, Json, JsonList, Listed, Made, OldestFirst, OrNoContent, Path, Query,
    VersionTag, Window,
};
use crate::security::AllowedOrUser;
use crate::state::AppState;
use axum::Json as Answer;
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
/// With an `Idempotency-Key`, a request that is sent again appends no second one: its answer is the
/// first message as it is now. A key without `conversations:read` gets back what it sent, with the
/// ids and the version, and `user` is null.
#[utoipa::path(
    post, path = "/{conversation_id}/messages", tag = "conversations",
    security(("api_key" = []), ("session" = [])), request_body = CreateMessage,
    params(
        ("conversation_id" = i64, Path, minimum = 1, example = 1),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Any text of visible ASCII characters, new for each message; kept for a day"),
    ),
    responses(
        (status = 201, body = Message, headers(
            ("ETag" = String, description = "The message's version"),
            ("Idempotency-Replayed" = String, description = "`true`, where an earlier request appended it"),
        )),
        (status = 400, description = "No such role", body = ErrorBody,
            example = json!({"detail": "Role must be 'user', 'assistant', or 'system'"})),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 409, description = "The user was deleted meanwhile", body = ErrorBody),
    ),
)]
async fn create_message(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Path(id): Path<i64>,
    Idempotent(new, once): Idempotent<CreateMessage>,
) -> Result<Response> {
    let once = once.map(|key| key.of(caller.access.credential()));
    let author = Author { reach: caller.access.reach(), may_read: caller.may_read() };
    let made = messages::append(&app, id, author, new, once.as_ref()).await?;
    let (Made::Now(message) | Made::Before(message)) = &made;
    Ok((VersionTag(message.version), made.map(Answer)).into_response())
}

/// Append several messages, in their order and nobody else's between them; all of them or none.
///
/// The body may have 16 MiB. An `Idempotency-Key` and a key without `conversations:read` work as with
/// a single message.
#[utoipa::path(
    post, path = "/{conversation_id}/messages/batch", tag = "conversations",
    security(("api_key" = []), ("session" = [])), request_body = CreateMessages,
    params(
        ("conversation_id" = i64, Path, minimum = 1, example = 1),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Any text of visible ASCII characters, new for each batch; kept for a day"),
    ),
    responses(
        (status = 201, body = Vec<Message>, headers(
            ("Idempotency-Replayed" = String, description = "`true`, where an earlier request appended them"),
        )),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 409, description = "A user was deleted meanwhile", body = ErrorBody),
    ),
)]
async fn create_messages(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Path(id): Path<i64>,
    Idempotent(new, once): Idempotent<CreateMessages>,
) -> Result<Made<JsonList<Message<'static>>>> {
    let once = once.map(|key| key.of(caller.access.credential()));
    let author = Author { reach: caller.access.reach(), may_read: caller.may_read() };
    let made = messages::append_all(&app, id, author, new, once.as_ref()).await?;
    Ok(made.map(JsonList))
}

/// List the messages of a conversation, in the order in which they were appended or, with
/// `order=desc`, the newest first.
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
    let reach = access.reach();
    let Listed { entries, link } = messages::numbers(&db, id, reach, window).await?;
    let parts = messages::Parts::of_numbers(db, id, reach, &entries);
    Ok((link, stream::answer(parts).await?).into_response())
}

/// Get one message.
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
    let message = messages::get(&db, id, message_id, access.reach()).await?;
    Ok((VersionTag(message.version), Answer(message)).into_response())
}

/// Edit a message: one's own, or any with a key. Only the fields sent change.
///
/// With `If-Match`, only if nobody else has changed it since it was got.
#[utoipa::path(
    patch, path = "/{conversation_id}/messages/{message_id}", tag = "conversations",
    security(("api_key" = []), ("session" = [])), request_body = EditMessage,
    params(
        ("conversation_id" = i64, Path, minimum = 1, example = 1),
        ("message_id" = i64, Path, minimum = 1, example = 1),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the version that is to be changed"),
    ),
    responses(
        (status = 200, body = Message, headers(("ETag" = String, description = "The new version"))),
        (status = 204, description = "Changed, by a key without `conversations:read`",
            headers(("ETag" = String, description = "The new version"))),
        (status = 403, description = "Somebody else's message, or no key that may", body = ErrorBody),
        (status = 404, description = "No such conversation or message", body = ErrorBody),
        (status = 409, description = "It was deleted", body = ErrorBody),
        (status = 412, description = "It was changed meanwhile", body = ErrorBody),
    ),
)]
async fn edit_message(
    State(app): State<AppState>,
    caller: AllowedOrUser<ChangeConversations>,
    Path(ids): Path<(i64, i64)>,
    meant: IfMatch,
    Json(changes): Json<EditMessage>,
) -> Result<Response> {
    let (reach, by) = (caller.access.reach(), Origin::of_key(&caller.access));
    let message = messages::edit(&app, ids, (reach, by.as_ref()), &meant, &changes).await?;
    let version = VersionTag(message.version);
    Ok((version, OrNoContent(caller.may_read().then_some(Answer(message)))).into_response())
}

/// Delete what a message says: one's own, or any with a key. Its place in the conversation stays.
#[utoipa::path(
    delete, path = "/{conversation_id}/messages/{message_id}", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(
        ("conversation_id" = i64, Path, minimum = 1, example = 1),
        ("message_id" = i64, Path, minimum = 1, example = 1),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the version that is to be deleted"),
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 403, description = "Somebody else's message, or no key that may", body = ErrorBody),
        (status = 404, description = "No such conversation or message", body = ErrorBody),
        (status = 412, description = "It was changed meanwhile", body = ErrorBody),
    ),
)]
async fn delete_message(
    State(app): State<AppState>,
    AllowedOrUser { access, .. }: AllowedOrUser<ChangeConversations>,
    Path(ids): Path<(i64, i64)>,
    meant: IfMatch,
) -> Result<StatusCode> {
    let by = Origin::of_key(&access);
    messages::delete(&app, ids, (access.reach(), by.as_ref()), &meant).await?;
    Ok(StatusCode::NO_CONTENT)
}
