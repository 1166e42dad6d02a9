//! HTTP routes for items: permissions, requests and responses.

use super::model::{CreateItem, Item, ItemChanges, ItemId, ListedItem, PatchItem, UpdateItem};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::http::{Json, Link, OldestFirst, OrNoContent, Path, Query, Window};
use crate::security::{Allowed, Scope, permissions};
use crate::state::AppState;
use axum::Json as JsonResponse;
use axum::extract::State;
use axum::http::StatusCode;
use std::collections::BTreeMap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes under `/items`.
pub fn routes() -> OpenApiRouter<AppState> {
    let all = routes!(list_items, create_item);
    let one = routes!(get_item, update_item, patch_item, delete_item);
    OpenApiRouter::new().routes(all).routes(one)
}

permissions! {
    ReadItems: Scope::ItemsRead, "read items",
    ChangeItems: Scope::ItemsWrite, "change items",
}

/// List items.
///
/// The response is an object with an entry for each item id.
#[utoipa::path(
    get, path = "", tag = "items", security(("api_key" = [])), params(Window<OldestFirst>),
    responses((status = 200, body = BTreeMap<String, ListedItem>,
        example = json!({"plumbus": {"name": "Plumbus"}, "gun": {"name": "Portal Gun"}}))),
)]
async fn list_items(
    State(app): State<AppState>,
    _caller: Allowed<ReadItems>,
    Query(window): Query<Window<OldestFirst>>,
) -> Result<(Link, JsonResponse<BTreeMap<String, ListedItem>>)> {
    let (link, items) = service::list(&app.db, window).await?;
    Ok((link, JsonResponse(items)))
}

/// Get an item.
#[utoipa::path(
    get, path = "/{item_id}", tag = "items", security(("api_key" = [])),
    params(("item_id" = String, Path, pattern = "^[a-z0-9_-]{1,64}$", example = "plumbus")),
    responses((status = 200, body = Item), (status = 404, description = "Item not found", body = ErrorBody)),
)]
async fn get_item(
    State(app): State<AppState>,
    _caller: Allowed<ReadItems>,
    Path(id): Path<ItemId>,
) -> Result<JsonResponse<Item>> {
    service::get(&app.db, &id).await.map(JsonResponse)
}

/// Create an item.
#[utoipa::path(
    post, path = "", tag = "items", security(("api_key" = [])), request_body = CreateItem,
    responses((status = 201, body = Item), (status = 409, description = "The id is already in use", body = ErrorBody)),
)]
async fn create_item(
    State(app): State<AppState>,
    _caller: Allowed<ChangeItems>,
    Json(new): Json<CreateItem>,
) -> Result<(StatusCode, JsonResponse<Item>)> {
    Ok((StatusCode::CREATED, JsonResponse(service::create(&app.db, &new).await?)))
}

/// Update an item.
///
/// Changes only the fields that are sent.
#[utoipa::path(
    put, path = "/{item_id}", tag = "items", security(("api_key" = [])), request_body = UpdateItem,
    params(("item_id" = String, Path, pattern = "^[a-z0-9_-]{1,64}$", example = "plumbus")),
    responses(
        (status = 200, body = Item),
        (status = 204, description = "Updated; the key has no `items:read`"),
        (status = 404, description = "Item not found", body = ErrorBody),
    ),
)]
async fn update_item(
    State(app): State<AppState>,
    caller: Allowed<ChangeItems>,
    Path(id): Path<ItemId>,
    Json(changes): Json<UpdateItem>,
) -> Result<OrNoContent<JsonResponse<Item>>> {
    change_item(&app, &caller, &id, &changes).await
}

/// Patch an item.
///
/// The body is a JSON Merge Patch (RFC 7396): absent fields stay unchanged.
#[utoipa::path(
    patch, path = "/{item_id}", tag = "items", security(("api_key" = [])),
    request_body(content((PatchItem = "application/json"), (PatchItem = "application/merge-patch+json"))),
    params(("item_id" = String, Path, pattern = "^[a-z0-9_-]{1,64}$", example = "plumbus")),
    responses(
        (status = 200, body = Item),
        (status = 204, description = "Updated; the key has no `items:read`"),
        (status = 404, description = "Item not found", body = ErrorBody),
    ),
)]
async fn patch_item(
    State(app): State<AppState>,
    caller: Allowed<ChangeItems>,
    Path(id): Path<ItemId>,
    Json(changes): Json<PatchItem>,
) -> Result<OrNoContent<JsonResponse<Item>>> {
    change_item(&app, &caller, &id, &changes).await
}

/// Changes an item. Returns it only if the caller may read it.
async fn change_item(
    app: &AppState,
    caller: &Allowed<ChangeItems>,
    id: &ItemId,
    changes: &ItemChanges,
) -> Result<OrNoContent<JsonResponse<Item>>> {
    let item = service::update(&app.db, id, changes).await?;
    Ok(OrNoContent(caller.may_read().then_some(JsonResponse(item))))
}

/// Delete an item.
#[utoipa::path(
    delete, path = "/{item_id}", tag = "items", security(("api_key" = [])),
    params(("item_id" = String, Path, pattern = "^[a-z0-9_-]{1,64}$", example = "plumbus")),
    responses((status = 204, description = "Deleted"), (status = 404, description = "Item not found", body = ErrorBody)),
)]
async fn delete_item(
    State(app): State<AppState>,
    _caller: Allowed<ChangeItems>,
    Path(id): Path<ItemId>,
) -> Result<StatusCode> {
    service::delete(&app.db, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
