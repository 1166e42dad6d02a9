//! The routes of forgotten passwords.

use super::model::{PasswordReset, ResetPassword};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::http::{Client, Json, NoBody, Path, RequestId};
use crate::security::{Allowed, Scope, permissions};
use crate::state::AppState;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json as Answer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// `/users/password-reset` and `/users/{user_id}/password-reset`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(reset_password)).routes(routes!(issue_password_reset))
}

permissions! {
    ResetPasswords: Scope::Admin, "reset users' passwords",
}

/// Set a new password with a token. Every session of the user ends.
///
/// Needs no key. A token works once.
#[utoipa::path(
    post, path = "/password-reset", tag = "users", request_body = ResetPassword,
    responses(
        (status = 204, description = "Set"),
        (status = 400, description = "The token is wrong, spent or too old", body = ErrorBody,
            example = json!({"detail": "Invalid or expired token"})),
    ),
)]
async fn reset_password(
    State(app): State<AppState>,
    Extension(client): Extension<Client>,
    Extension(request_id): Extension<RequestId>,
    Json(new): Json<ResetPassword>,
) -> Result<StatusCode> {
    service::spend(&app, new, &client, request_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get a token with which a user who forgot their password sets a new one, within an hour.
///
/// One that was given out before works no more.
#[utoipa::path(
    post, path = "/{user_id}/password-reset", tag = "users", security(("api_key" = [])),
    params(("user_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 201, body = PasswordReset),
        (status = 404, description = "No such user", body = ErrorBody),
    ),
)]
async fn issue_password_reset(
    State(app): State<AppState>,
    caller: Allowed<ResetPasswords>,
    Path(id): Path<i64>,
    _: NoBody,
) -> Result<(StatusCode, Answer<PasswordReset>)> {
    Ok((StatusCode::CREATED, Answer(service::issue(&app, &caller.actor, id).await?)))
}
