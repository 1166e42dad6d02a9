//! The routes of watching a conversation.

use super::WatchConversations;
use super::model::{Resume, Ticket, last_event_id};
use super::service;
use super::stream::Stream;
use super::watcher::Watcher;
use crate::core::error::{ErrorBody, Result};
use crate::http::{NoBody, Path, Query};
use crate::security::AllowedOrUser;
use crate::state::AppState;
use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below `/conversations`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(watch_conversation)).routes(routes!(create_event_ticket))
}

/// Watch a conversation: what happens in it, as server-sent events, without end.
///
/// Each event has an `id`, an `event` and `data` in JSON. `message.created`, `message.edited` and
/// `message.deleted` have the message as the messages route shows it now; `participant.added` and
/// `participant.removed` have `{"id", "username"}`; `conversation.updated` has
/// `{"id", "title", "metadata"}`. The stream tells what happens from now on, or after the event that
/// `Last-Event-ID` or `last_event_id` names; its first event is `begin`, its last `end`, without an id, with
/// `{"reason": …}`: `credential_ended`, `conversation_gone` or `server_stopping`. docs/LIVE.md has
/// the rest.
#[utoipa::path(
    get, path = "/{conversation_id}/events", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(
        ("conversation_id" = i64, Path, minimum = 1, example = 1),
        ("Last-Event-ID" = Option<i64>, Header, minimum = 0, description = "The id of the last event that was seen"),
        Resume,
    ),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream",
            example = "retry: 2000\nid: 41\n\nid: 42\nevent: participant.added\ndata: {\"id\":3,\"username\":\"cleo\"}\n\n"),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 429, description = "A rate limit is used up, or 20 streams are open; see Retry-After", body = ErrorBody,
            example = json!({"detail": "At most 20 event streams may be open at a time"})),
    ),
)]
async fn watch_conversation(
    State(app): State<AppState>,
    Watcher { access }: Watcher,
    Path(id): Path<i64>,
    Query(resume): Query<Resume>,
    headers: HeaderMap,
) -> Result<Response> {
    let last_seen = last_event_id(&headers)?.or(resume.last_event_id);
    Ok(Stream::open(app, id, access, last_seen).await?.answer())
}

/// Make a ticket that lets a browser watch a conversation, once, within 60 seconds.
///
/// For `EventSource`, which cannot send header fields. It gives the access of the credential that
/// makes it, as long as that is good.
#[utoipa::path(
    post, path = "/{conversation_id}/events/ticket", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 201, body = Ticket),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 409, description = "The conversation or the credential was deleted meanwhile", body = ErrorBody),
    ),
)]
async fn create_event_ticket(
    State(app): State<AppState>,
    AllowedOrUser { access, .. }: AllowedOrUser<WatchConversations>,
    Path(id): Path<i64>,
    _: NoBody,
) -> Result<(StatusCode, Answer<Ticket>)> {
    Ok((StatusCode::CREATED, Answer(service::make_ticket(&app, id, &access).await?)))
}
