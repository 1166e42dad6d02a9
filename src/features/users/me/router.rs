//! HTTP routes for the current user.

use super::model::{DeleteMe, PatchMe, UpdateMe};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::features::users::model::User;
use crate::http::{Client, Json};
use crate::security::SignedIn;
use crate::state::AppState;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json as JsonResponse};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The route `/users/me`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_me, update_me, patch_me, delete_me))
}

/// Get the current user.
#[utoipa::path(
    get, path = "/me", tag = "users", security(("session" = [])),
    responses((status = 200, body = User)),
)]
async fn get_me(State(app): State<AppState>, user: SignedIn) -> Result<JsonResponse<User>> {
    service::get(&app, &user).await.map(JsonResponse)
}

/// Update the current user.
///
/// Changes only the fields that are sent. A new password revokes all sessions except the current
/// one.
#[utoipa::path(
    put, path = "/me", tag = "users", security(("session" = [])), request_body = UpdateMe,
    responses(
        (status = 200, body = User),
        (status = 400, description = "The email or username is already in use", body = ErrorBody,
            example = json!({"detail": "Email or username already registered"})),
        (status = 403, description = "The current password is wrong, or the caller uses an API key", body = ErrorBody),
        (status = 409, description = "Another request changed the user at the same time", body = ErrorBody),
    ),
)]
async fn update_me(
    State(app): State<AppState>,
    user: SignedIn,
    Extension(client): Extension<Client>,
    Json(changes): Json<UpdateMe>,
) -> Result<JsonResponse<User>> {
    service::update(&app, &user, &client, changes).await.map(JsonResponse)
}

/// Patch the current user.
///
/// The body is a JSON Merge Patch (RFC 7396): absent fields stay unchanged, and null clears
/// `full_name`. A new password revokes all sessions except the current one.
#[utoipa::path(
    patch, path = "/me", tag = "users", security(("session" = [])),
    request_body(content((PatchMe = "application/json"), (PatchMe = "application/merge-patch+json"))),
    responses(
        (status = 200, body = User),
        (status = 400, description = "The email or username is already in use", body = ErrorBody,
            example = json!({"detail": "Email or username already registered"})),
        (status = 403, description = "The current password is wrong, or the caller uses an API key", body = ErrorBody),
        (status = 409, description = "Another request changed the user at the same time", body = ErrorBody),
    ),
)]
async fn patch_me(
    State(app): State<AppState>,
    user: SignedIn,
    Extension(client): Extension<Client>,
    Json(changes): Json<PatchMe>,
) -> Result<JsonResponse<User>> {
    service::update(&app, &user, &client, changes).await.map(JsonResponse)
}

/// Delete the current user.
///
/// Their messages are kept without an author.
#[utoipa::path(
    delete, path = "/me", tag = "users", security(("session" = [])), request_body = DeleteMe,
    responses(
        (status = 204, description = "Deleted"),
        (status = 403, description = "The current password is wrong, or the caller uses an API key", body = ErrorBody),
        (status = 409, description = "Another request changed the user at the same time", body = ErrorBody),
    ),
)]
async fn delete_me(
    State(app): State<AppState>,
    user: SignedIn,
    Extension(client): Extension<Client>,
    Json(current_password): Json<DeleteMe>,
) -> Result<StatusCode> {
    service::delete(&app, &user, &client, current_password).await?;
    Ok(StatusCode::NO_CONTENT)
}
