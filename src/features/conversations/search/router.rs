//! The routes of search.

use super::model::{Search, SearchHit, SearchParams};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::http::{Listed, Path, Query};
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

/// Search all messages, the newest first: those of conversations a user takes part in, or all for a
/// key.
#[utoipa::path(
    get, path = "/search", tag = "conversations", security(("api_key" = []), ("session" = [])), params(SearchParams),
    responses((status = 200, body = Vec<SearchHit>)),
)]
async fn search(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<SearchConversations>,
    Query(search): Query<Search>,
) -> Result<Listed<SearchHit>> {
    service::search(&db, None, access.reach(), search).await
}

/// Search the messages of one conversation, the newest first.
#[utoipa::path(
    get, path = "/{conversation_id}/search", tag = "conversations", security(("api_key" = []), ("session" = [])),
    params(("conversation_id" = i64, Path, minimum = 1, example = 1), SearchParams),
    responses((status = 200, body = Vec<SearchHit>), (status = 404, description = "No such conversation", body = ErrorBody)),
)]
async fn search_conversation(
    State(db): State<Db>,
    AllowedOrUser { access, .. }: AllowedOrUser<SearchConversations>,
    Path(id): Path<i64>,
    Query(search): Query<Search>,
) -> Result<Listed<SearchHit>> {
    service::search(&db, Some(id), access.reach(), search).await
}
