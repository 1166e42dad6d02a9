//! Routes for event streams.

use super::model::{StreamParams, Ticket, last_event_id};
use super::permissions::SubscribeToConversations;
use super::service;
use super::stream::Stream;
use super::subscriber::Subscriber;
use crate::core::error::{ErrorBody, Result};
use crate::http::{NoBody, Path, Query};
use crate::security::AllowedOrUser;
use crate::state::AppState;
use axum::Json as JsonResponse;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below `/conversations`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(watch_conversation)).routes(routes!(create_event_ticket))
}

/// Subscribe to a conversation's events.
///
/// The response is a stream of server-sent events. Each event has an `id`, an `event` and `data` in
/// JSON:
///
/// - `message.created`, `message.edited`, `message.deleted`: the message in its current state, as
///   in the messages route.
/// - `participant.added`, `participant.removed`: `{"id", "username"}`.
/// - `conversation.updated`: `{"id", "title", "metadata"}`.
///
/// With `Last-Event-ID`, `last_event_id` or `lastEventId`, the stream resumes after that event; otherwise it
/// starts with the next new event. The first event is `begin`. If events that the client has not
/// received were removed, `missed` follows. The last event is `end`. It has no id; its `reason` is
/// `credential_ended`, `conversation_gone` or `server_stopping`. See docs/EVENTS.md.
#[utoipa::path(
    get, path = "/{conversation_id}/events", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(
        ("conversation_id" = i64, Path, minimum = 1, example = 1),
        ("Last-Event-ID" = Option<i64>, Header, minimum = 0, description = "Id of the last event received"),
        StreamParams,
        ("lastEventId" = Option<i64>, Query, minimum = 0,
            description = "The same as `last_event_id`, as event-source-polyfill sends it"),
        ("ticket" = Option<String>, Query, max_length = 100, description = "A ticket, instead of a credential"),
    ),
    responses(
        (status = 200, description = "The event stream", body = String, content_type = "text/event-stream",
            example = "retry: 2000\nid: 41\nevent: begin\ndata: {}\n\nid: 42\nevent: participant.added\ndata: {\"id\":3,\"username\":\"cleo\"}\n\n"),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 429, description = "Rate limit exceeded, or 20 streams are open; see Retry-After", body = ErrorBody,
            example = json!({"detail": "At most 20 event streams may be open at a time"})),
    ),
)]
async fn watch_conversation(
    State(app): State<AppState>,
    Subscriber { access }: Subscriber,
    Path(id): Path<i64>,
    Query(resume): Query<StreamParams>,
    headers: HeaderMap,
) -> Result<Response> {
    let last_seen = last_event_id(&headers)?.or(resume.last_event_id);
    Ok(Stream::open(app, id, access, last_seen).await?.answer())
}

/// Create a ticket for an event stream.
///
/// For a browser's `EventSource`, which cannot send request headers. The ticket is valid for one
/// request within 60 seconds. It has the permissions of the credential that created it, while that
/// credential is valid.
#[utoipa::path(
    post, path = "/{conversation_id}/events/ticket", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 201, body = Ticket),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 409, description = "The conversation or credential was deleted during the request", body = ErrorBody),
    ),
)]
async fn create_event_ticket(
    State(app): State<AppState>,
    AllowedOrUser { access, .. }: AllowedOrUser<SubscribeToConversations>,
    Path(id): Path<i64>,
    _: NoBody,
) -> Result<(StatusCode, JsonResponse<Ticket>)> {
    Ok((StatusCode::CREATED, JsonResponse(service::make_ticket(&app, id, &access).await?)))
}
