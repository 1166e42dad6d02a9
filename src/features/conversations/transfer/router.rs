//! Routes for the export and import of conversations.

use super::export::{Export, record_export};
use super::import;
use super::model::{ImportOptions, ImportReport};
use crate::audit::Origin;
use crate::core::error::{ErrorBody, Result, ValidationErrorBody};
use crate::db::Db;
use crate::http::{NdjsonBody, Path, Query};
use crate::security::{Allowed, AllowedOrUser, Scope, SignedIn, Visibility, permissions};
use crate::state::AppState;
use axum::Json as JsonResponse;
use axum::extract::State;
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Media type of newline-delimited JSON.
const NDJSON: &str = "application/x-ndjson";
/// Example of an import body.
const EXAMPLE: &str = concat!(
    r#"{"type":"conversation","external_id":"slack:C024BE91L","title":"Planning the trip","#,
    r#""created_at":"2026-01-31T09:30:00Z","participants":[{"username":"alice"}]}"#,
    "\n",
    r#"{"type":"message","role":"user","content":"Hello!","user":{"username":"alice"},"#,
    r#""created_at":"2026-01-31T09:31:00Z"}"#,
    "\n"
);

/// The routes below `/conversations`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(export_conversation)).routes(routes!(import_conversations))
}

/// The routes below `/users`.
pub fn user_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(export_own)).routes(routes!(export_user))
}

permissions! {
    ReadConversations: Scope::ConversationsRead, "read conversations",
    ImportConversations: Scope::Admin, "import conversations",
    // An export contains user details and messages: `users:read` alone is not enough.
    ExportUsers: Scope::Read, "export users",
}

fn ndjson_response(export: Export) -> Response {
    ([(CONTENT_TYPE, NDJSON)], export.into_body()).into_response()
}

/// Export a conversation as newline-delimited JSON.
///
/// The first line is the conversation. Its messages follow in order, one per line. Messages
/// appended after the export begins are not included. A response that ends early is incomplete.
#[utoipa::path(
    get, path = "/{conversation_id}/export", tag = "conversations",
    security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson"),
        (status = 404, description = "No such conversation", body = ErrorBody),
    ),
)]
async fn export_conversation(
    State(app): State<AppState>,
    AllowedOrUser { access, .. }: AllowedOrUser<ReadConversations>,
    method: Method,
    Path(id): Path<i64>,
) -> Result<Response> {
    let export = Export::of_conversation(app.db.clone(), access.visibility(), id).await?;
    let details = json!({ "conversation_id": id });
    record_export(&app, &method, Origin::of_key(&access).as_ref(), &details).await?;
    Ok(ndjson_response(export))
}

/// Export a user as newline-delimited JSON.
///
/// The first line is the user. The user's conversations follow, sorted by id, each with its
/// messages.
#[utoipa::path(
    get, path = "/{user_id}/export", tag = "users", security(("api_key" = [])),
    params(("user_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson"),
        (status = 404, description = "No such user", body = ErrorBody),
    ),
)]
async fn export_user(
    State(app): State<AppState>,
    caller: Allowed<ExportUsers>,
    method: Method,
    Path(id): Path<i64>,
) -> Result<Response> {
    let export = Export::of_user(app.db.clone(), Visibility::All, id).await?;
    let by = Origin::from(&caller.actor);
    record_export(&app, &method, Some(&by), &json!({ "user_id": id })).await?;
    Ok(ndjson_response(export))
}

/// Export the current user as newline-delimited JSON.
///
/// The first line is the user. The user's conversations follow, sorted by id, each with its
/// messages.
#[utoipa::path(
    get, path = "/me/export", tag = "users", security(("session" = [])),
    responses((status = 200, body = String, content_type = "application/x-ndjson")),
)]
async fn export_own(State(db): State<Db>, user: SignedIn) -> Result<Response> {
    Export::of_user(db, Visibility::ParticipantOf(user.user_id()), user.user_id())
        .await
        .map(ndjson_response)
}

/// Import conversations from newline-delimited JSON.
///
/// The format is that of an export. Each conversation is imported completely or not at all. A
/// conversation whose `external_id` already exists is skipped. An invalid line ends the import;
/// conversations imported before it are kept. A line has at most 4 MiB; the number of lines is not
/// limited.
///
/// Messages and memberships older than the moment a user took the username or email are not
/// attached to that user, unless `attach_newer_accounts` is set. The report lists these users, and
/// those to whom history was attached.
#[utoipa::path(
    post, path = "/import", tag = "conversations", security(("api_key" = [])), params(ImportOptions),
    request_body(content = Option<String>, content_type = "application/x-ndjson", example = json!(EXAMPLE)),
    responses(
        (status = 200, body = ImportReport),
        (status = 408, description = "Timed out waiting for the next line", body = ErrorBody),
        (status = 415, description = "The content type is not application/x-ndjson, or the body is compressed", body = ErrorBody),
        (status = 422, description = "A line is invalid; `loc` has its number after `body`", body = ValidationErrorBody),
    ),
)]
async fn import_conversations(
    State(app): State<AppState>,
    caller: Allowed<ImportConversations>,
    Query(options): Query<ImportOptions>,
    lines: NdjsonBody,
) -> Result<JsonResponse<ImportReport>> {
    import::import(&app, &caller.actor, options, lines).await.map(JsonResponse)
}
