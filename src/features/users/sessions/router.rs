//! The routes of logging in and of one's own sessions.

use super::model::{BegunSession, EndedSessions, LogIn, OwnSession, user_agent};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::http::{Client, Json, Listed, NewestFirst, NoBody, Path, Query, Window};
use crate::security::LoggedIn;
use crate::state::AppState;
use axum::extract::State;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json as Answer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// `/users/login`, `/users/logout` and the routes below `/users/me/sessions`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(log_in))
        .routes(routes!(log_out))
        .routes(routes!(list_sessions, end_sessions))
        .routes(routes!(end_session))
}

/// Log in.
///
/// Needs no key. The answer holds the session's token, which is never shown again.
#[utoipa::path(
    post, path = "/login", tag = "users", security(()), request_body = LogIn,
    responses(
        (status = 200, body = BegunSession),
        (status = 401, description = "No such user, another password, or a user who is not active", body = ErrorBody,
            headers(("WWW-Authenticate" = String, description = "How to authenticate")),
            example = json!({"detail": "Incorrect email or password"})),
    ),
)]
async fn log_in(
    State(app): State<AppState>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Json(login): Json<LogIn>,
) -> Result<Answer<BegunSession>> {
    let user_agent = headers.get(USER_AGENT).and_then(|field| user_agent(field.as_bytes()));
    service::log_in(&app, login, &client, user_agent.as_deref()).await.map(Answer)
}

/// Log out: the session in use ends.
#[utoipa::path(
    post, path = "/logout", tag = "users", security(("session" = [])),
    responses((status = 204, description = "Logged out")),
)]
async fn log_out(State(app): State<AppState>, user: LoggedIn, _: NoBody) -> Result<StatusCode> {
    service::log_out(&app, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List one's own sessions, the newest first unless asked otherwise.
#[utoipa::path(
    get, path = "/me/sessions", tag = "users", security(("session" = [])), params(Window<NewestFirst>),
    responses((status = 200, body = Vec<OwnSession>)),
)]
async fn list_sessions(
    State(app): State<AppState>,
    user: LoggedIn,
    Query(window): Query<Window<NewestFirst>>,
) -> Result<Listed<OwnSession>> {
    service::list(&app, &user, window).await
}

/// End all of one's own sessions, or all but the one in use.
#[utoipa::path(
    delete, path = "/me/sessions", tag = "users", security(("session" = [])), params(EndedSessions),
    responses((status = 204, description = "Ended")),
)]
async fn end_sessions(
    State(app): State<AppState>,
    user: LoggedIn,
    Query(ended): Query<EndedSessions>,
) -> Result<StatusCode> {
    service::end_all(&app, &user, ended.keep_current).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End one of one's own sessions.
#[utoipa::path(
    delete, path = "/me/sessions/{session_id}", tag = "users", security(("session" = [])),
    params(("session_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 204, description = "Ended"), (status = 404, description = "No such session", body = ErrorBody)),
)]
async fn end_session(
    State(app): State<AppState>,
    user: LoggedIn,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    service::end(&app, &user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
