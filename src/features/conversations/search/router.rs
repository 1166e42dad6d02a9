//! Routes for search.

use super::model::{Search, SearchHit};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::http::{ListPage, Part, Path, Query};
use crate::security::{AllowedOrUser, Scope, permissions};
use crate::state::AppState;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below `/conversations`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(search)).routes(routes!(search_conversation))
}

permissions! {
    SearchConversations: Scope::ConversationsRead, "read conversations",
}

/// Search messages.
///
/// Results are sorted newest first. A signed-in user searches the conversations in which they are a
/// participant, an API key all conversations.
#[utoipa::path(
    get, path = "/search", tag = "conversations", security(("api_key" = []), ("session" = [])), params(Search, Part),
    responses((status = 200, body = Vec<SearchHit>)),
)]
async fn search(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<SearchConversations>,
    Query((search, part)): Query<(Search, Part)>,
) -> Result<ListPage<SearchHit>> {
    service::search(&db, None, access.visibility(), &search.q, part).await
}

/// Search the messages of a conversation.
///
/// Results are sorted newest first.
#[utoipa::path(
    get, path = "/{conversation_id}/search", tag = "conversations", security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), Search, Part),
    responses((status = 200, body = Vec<SearchHit>), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn search_conversation(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<SearchConversations>,
    Path(id): Path<i64>,
    Query((search, part)): Query<(Search, Part)>,
) -> Result<ListPage<SearchHit>> {
    service::search(&db, Some(id), access.visibility(), &search.q, part).await
}
