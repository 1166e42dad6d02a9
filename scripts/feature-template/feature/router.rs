//! HTTP routes for @the things@: permissions, requests and responses.

use super::model::{@Thing@, @Thing@Filter, Create@Thing@, Update@Thing@};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::db::Db;
use crate::http::{Json, ListPage, OldestFirst, OrNoContent, Path, Query, Window};
use crate::security::{Allowed, Scope, permissions};
use crate::state::AppState;
use axum::Json as JsonResponse;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes under `/@the-things@`.
pub fn routes() -> OpenApiRouter<AppState> {
    let all = routes!(list_@things@, create_@thing@);
    let one = routes!(get_@thing@, update_@thing@, delete_@thing@);
    OpenApiRouter::new().routes(all).routes(one)
}

permissions! {
    Read@Things@: Scope::@Things@Read, "read @the things@",
    Change@Things@: Scope::@Things@Write, "change @the things@",
}

/// List @the things@.
///
/// Sorted by id.
#[utoipa::path(
    get, path = "", tag = "@the-things@", security(("api_key" = [])),
    params(@Thing@Filter, Window<OldestFirst>),
    responses((status = 200, body = Vec<@Thing@>)),
)]
async fn list_@things@(
    State(db): State<Db>,
    _caller: Allowed<Read@Things@>,
    Query((filter, window)): Query<(@Thing@Filter, Window<OldestFirst>)>,
) -> Result<ListPage<@Thing@>> {
    service::list(&db, &filter, window).await
}

/// Create @a thing@.
#[utoipa::path(
    post, path = "", tag = "@the-things@", security(("api_key" = [])), request_body = Create@Thing@,
    responses((status = 201, body = @Thing@)),
)]
async fn create_@thing@(
    State(app): State<AppState>,
    _caller: Allowed<Change@Things@>,
    Json(new): Json<Create@Thing@>,
) -> Result<(StatusCode, JsonResponse<@Thing@>)> {
    Ok((StatusCode::CREATED, JsonResponse(service::create(&app, &new).await?)))
}

/// Get @a thing@.
#[utoipa::path(
    get, path = "/{@thing@_id}", tag = "@the-things@", security(("api_key" = [])),
    params(("@thing@_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = @Thing@),
        (status = 404, description = "@The thing@ not found", body = ErrorBody),
    ),
)]
async fn get_@thing@(
    State(db): State<Db>,
    _caller: Allowed<Read@Things@>,
    Path(id): Path<i64>,
) -> Result<JsonResponse<@Thing@>> {
    service::get(&db, id).await.map(JsonResponse)
}

/// Update @a thing@.
///
/// Changes only the fields that are sent.
#[utoipa::path(
    patch, path = "/{@thing@_id}", tag = "@the-things@", security(("api_key" = [])), request_body = Update@Thing@,
    params(("@thing@_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = @Thing@),
        (status = 204, description = "Updated; the key has no `@the-things@:read`"),
        (status = 404, description = "@The thing@ not found", body = ErrorBody),
    ),
)]
async fn update_@thing@(
    State(app): State<AppState>,
    caller: Allowed<Change@Things@>,
    Path(id): Path<i64>,
    Json(changes): Json<Update@Thing@>,
) -> Result<OrNoContent<JsonResponse<@Thing@>>> {
    let updated = service::update(&app, id, &changes).await?;
    Ok(OrNoContent(caller.may_read().then_some(JsonResponse(updated))))
}

/// Delete @a thing@.
#[utoipa::path(
    delete, path = "/{@thing@_id}", tag = "@the-things@", security(("api_key" = [])),
    params(("@thing@_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "@The thing@ not found", body = ErrorBody),
    ),
)]
async fn delete_@thing@(
    State(db): State<Db>,
    _caller: Allowed<Change@Things@>,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    service::delete(&db, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
