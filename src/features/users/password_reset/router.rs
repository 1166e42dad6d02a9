//! HTTP routes for password reset.

use super::model::{PasswordReset, ResetPassword};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::http::{Client, Json, NoBody, Path, RequestId};
use crate::security::{Allowed, Scope, permissions};
use crate::state::AppState;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json as JsonResponse};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes `/users/password-reset` and `/users/{user_id}/password-reset`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(reset_password)).routes(routes!(issue_password_reset))
}

permissions! {
    ResetPasswords: Scope::Admin, "reset users' passwords",
}

/// Reset a password.
///
/// Sets a new password with a single-use token and revokes all sessions of the user. Needs no API
/// key.
#[utoipa::path(
    post, path = "/password-reset", tag = "users", request_body = ResetPassword,
    responses(
        (status = 204, description = "Password changed"),
        (status = 400, description = "The token is invalid, used or expired", body = ErrorBody,
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

/// Issue a password reset token.
///
/// The token is valid for one hour and can be used once. Issuing a token revokes an earlier one.
#[utoipa::path(
    post, path = "/{user_id}/password-reset", tag = "users", security(("api_key" = [])),
    params(("user_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 201, body = PasswordReset),
        (status = 404, description = "User not found", body = ErrorBody),
    ),
)]
async fn issue_password_reset(
    State(app): State<AppState>,
    caller: Allowed<ResetPasswords>,
    Path(id): Path<i64>,
    _: NoBody,
) -> Result<(StatusCode, JsonResponse<PasswordReset>)> {
    Ok((StatusCode::CREATED, JsonResponse(service::issue(&app, &caller.actor, id).await?)))
}
