//! The routes of one's own user.

use super::model::{DeleteMe, UpdateMe};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::features::users::model::User;
use crate::http::{Client, Json};
use crate::security::LoggedIn;
use crate::state::AppState;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json as Answer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// `/users/me`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_me, update_me, delete_me))
}

/// Get oneself.
#[utoipa::path(
    get, path = "/me", tag = "users", security(("session" = [])),
    responses((status = 200, body = User)),
)]
async fn get_me(State(app): State<AppState>, user: LoggedIn) -> Result<Answer<User>> {
    service::get(&app, &user).await.map(Answer)
}

/// Change oneself. Only the fields sent change.
///
/// Another password ends all of one's sessions but the one in use.
#[utoipa::path(
    put, path = "/me", tag = "users", security(("session" = [])), request_body = UpdateMe,
    responses(
        (status = 200, body = User),
        (status = 400, description = "The email or the username is taken", body = ErrorBody,
            example = json!({"detail": "Email or username already registered"})),
        (status = 403, description = "The current password is another one, or the caller is a key", body = ErrorBody),
        (status = 409, description = "Something else changed the user meanwhile", body = ErrorBody),
    ),
)]
async fn update_me(
    State(app): State<AppState>,
    user: LoggedIn,
    Extension(client): Extension<Client>,
    Json(changes): Json<UpdateMe>,
) -> Result<Answer<User>> {
    service::update(&app, &user, &client, changes).await.map(Answer)
}

/// Delete oneself. One's messages stay, as nobody's.
#[utoipa::path(
    delete, path = "/me", tag = "users", security(("session" = [])), request_body = DeleteMe,
    responses(
        (status = 204, description = "Deleted"),
        (status = 403, description = "The current password is another one, or the caller is a key", body = ErrorBody),
        (status = 409, description = "Something else changed the user meanwhile", body = ErrorBody),
    ),
)]
async fn delete_me(
    State(app): State<AppState>,
    user: LoggedIn,
    Extension(client): Extension<Client>,
    Json(current_password): Json<DeleteMe>,
) -> Result<StatusCode> {
    service::delete(&app, &user, &client, current_password).await?;
    Ok(StatusCode::NO_CONTENT)
}
