//! The routes that move conversations.

use super::export::{Export, record_export};
use super::import;
use super::model::{ImportOptions, ImportReport};
use crate::audit::Origin;
use crate::core::error::{ErrorBody, Result, ValidationErrorBody};
use crate::db::Db;
use crate::http::{Lines, Path, Query};
use crate::security::{Allowed, AllowedOrUser, LoggedIn, Reach, Scope, permissions};
use crate::state::AppState;
use axum::Json as Answer;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Lines of JSON.
const NDJSON: &str = "application/x-ndjson";
/// Two of them.
const EXAMPLE: &str = concat!(
    r#"{"type":"conversation","external_id":"slack:C024BE91L","title":"Planning the trip","#,
    r#""created_at":"2026-01-31T09:30:00Z","participants":[{"username":"alice"}]}"#,
    "\n",
    r#"{"type":"message","role":"user","content":"Hello!","user":{"username":"alice"},"#,
    r#""created_at":"2026-01-31T09:31:00Z"}"#,
    "\n"
);

/// Those below `/conversations`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(export_conversation)).routes(routes!(import_conversations))
}

/// Those below `/users`.
pub fn user_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(export_own)).routes(routes!(export_user))
}

permissions! {
    ReadConversations: Scope::ConversationsRead, "read conversations",
    ImportConversations: Scope::Admin, "import conversations",
    // All that a key may read: users, and what is said.
    ExportUsers: Scope::Read, "export users",
}

fn answer(export: Export) -> Response {
    ([(CONTENT_TYPE, NDJSON)], export.into_body()).into_response()
}

/// Export a conversation as lines of JSON: itself, and then each of its messages, in their order.
///
/// The messages are those it has when the export begins. An answer that breaks off is not whole.
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
    Path(id): Path<i64>,
) -> Result<Response> {
    let export = Export::of_conversation(app.db.clone(), access.reach(), id).await?;
    let details = json!({ "conversation_id": id });
    record_export(&app, Origin::of_key(&access).as_ref(), &details).await?;
    Ok(answer(export))
}

/// Export a user as lines of JSON: themselves, and then each conversation they take part in, by id,
/// with its messages.
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
    Path(id): Path<i64>,
) -> Result<Response> {
    let export = Export::of_user(app.db.clone(), Reach::Everything, id).await?;
    let by = Origin::from(&caller.actor);
    record_export(&app, Some(&by), &json!({ "user_id": id })).await?;
    Ok(answer(export))
}

/// Export yourself as lines of JSON, and then each conversation you take part in, by id, with its
/// messages.
#[utoipa::path(
    get, path = "/me/export", tag = "users", security(("session" = [])),
    responses((status = 200, body = String, content_type = "application/x-ndjson")),
)]
async fn export_own(State(db): State<Db>, user: LoggedIn) -> Result<Response> {
    Export::of_user(db, Reach::OwnOf(user.user_id()), user.user_id()).await.map(answer)
}

/// Import conversations from lines of JSON, as exports have them, as they arrive.
///
/// Each conversation is taken in as a whole or not at all, and one whose `external_id` is here
/// already is skipped. A bad line ends it; the conversations before stay. Each line has at most
/// 1 MiB; there may be any number of them.
///
/// Nothing is attached to users who took a name after its history was made, unless
/// `attach_newer_accounts` says so. The report names them, and those to whom history was attached.
#[utoipa::path(
    post, path = "/import", tag = "conversations", security(("api_key" = [])), params(ImportOptions),
    request_body(content = Option<String>, content_type = "application/x-ndjson", example = json!(EXAMPLE)),
    responses(
        (status = 200, body = ImportReport),
        (status = 408, description = "No line arrived for too long", body = ErrorBody),
        (status = 415, description = "The body is not said to be lines of JSON", body = ErrorBody),
        (status = 422, description = "A line breaks a rule; its number stands after `body`", body = ValidationErrorBody),
    ),
)]
async fn import_conversations(
    State(app): State<AppState>,
    caller: Allowed<ImportConversations>,
    Query(options): Query<ImportOptions>,
    lines: Lines,
) -> Result<Answer<ImportReport>> {
    import::import(&app, &caller.actor, options, lines).await.map(Answer)
}
