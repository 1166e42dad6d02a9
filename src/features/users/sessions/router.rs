//! HTTP routes for sign-in, sign-out and the sessions of the current user.

use super::model::{BegunSession, EndedSessions, LogIn, OwnSession, user_agent};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::http::{Client, Json, ListPage, NewestFirst, NoBody, Path, Query, Window};
use crate::security::SignedIn;
use crate::state::AppState;
use axum::extract::State;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json as JsonResponse};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes `/users/login`, `/users/logout` and those under `/users/me/sessions`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(log_in))
        .routes(routes!(log_out))
        .routes(routes!(list_sessions, end_sessions))
        .routes(routes!(end_session))
}

/// Sign in.
///
/// Needs no API key. The response contains the session token, which is never shown again.
#[utoipa::path(
    post, path = "/login", tag = "users", security(()), request_body = LogIn,
    responses(
        (status = 200, body = BegunSession),
        (status = 401, description = "The user does not exist or is inactive, or the password is wrong", body = ErrorBody,
            headers(("WWW-Authenticate" = String, description = "How to authenticate")),
            example = json!({"detail": "Incorrect email or password"})),
    ),
)]
async fn log_in(
    State(app): State<AppState>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Json(login): Json<LogIn>,
) -> Result<JsonResponse<BegunSession>> {
    let user_agent = headers.get(USER_AGENT).and_then(|field| user_agent(field.as_bytes()));
    service::log_in(&app, login, &client, user_agent.as_deref()).await.map(JsonResponse)
}

/// Sign out.
///
/// Revokes the current session.
#[utoipa::path(
    post, path = "/logout", tag = "users", security(("session" = [])),
    responses((status = 204, description = "Signed out")),
)]
async fn log_out(State(app): State<AppState>, user: SignedIn, _: NoBody) -> Result<StatusCode> {
    service::log_out(&app, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List sessions of the current user.
///
/// Newest first, unless `order=asc`.
#[utoipa::path(
    get, path = "/me/sessions", tag = "users", security(("session" = [])), params(Window<NewestFirst>),
    responses((status = 200, body = Vec<OwnSession>)),
)]
async fn list_sessions(
    State(app): State<AppState>,
    user: SignedIn,
    Query(window): Query<Window<NewestFirst>>,
) -> Result<ListPage<OwnSession>> {
    service::list(&app, &user, window).await
}

/// Revoke all sessions of the current user.
///
/// Revokes the current session too, unless `keep_current=true`.
#[utoipa::path(
    delete, path = "/me/sessions", tag = "users", security(("session" = [])), params(EndedSessions),
    responses((status = 204, description = "Revoked")),
)]
async fn end_sessions(
    State(app): State<AppState>,
    user: SignedIn,
    Query(ended): Query<EndedSessions>,
) -> Result<StatusCode> {
    service::end_all(&app, &user, ended.keep_current).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revoke a session of the current user.
#[utoipa::path(
    delete, path = "/me/sessions/{session_id}", tag = "users", security(("session" = [])),
    params(("session_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 204, description = "Revoked"), (status = 404, description = "Session not found", body = ErrorBody)),
)]
async fn end_session(
    State(app): State<AppState>,
    user: SignedIn,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    service::end(&app, &user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
