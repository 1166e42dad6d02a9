//! HTTP routes for users: permissions, requests and responses.

use super::model::{
    CreateUser, PatchUser, PublicUser, RequestedChanges, UpdateUser, User, Username,
};
use super::{me, password_reset, service, sessions};
use crate::core::config::Registration;
use crate::core::error::{Error, ErrorBody, Result};
use crate::db::Db;
use crate::http::{Client, Json, ListPage, OldestFirst, OrNoContent, Path, Query, Window};
use crate::security::rate_limit::Throttle;
use crate::security::{Allowed, Caller, Scope, permissions};
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Extension, Json as JsonResponse};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes under `/users`. `registration` decides who may register.
pub fn routes(throttle: &Throttle, registration: Registration) -> OpenApiRouter<AppState> {
    let limit = throttle.clone();
    let registering = OpenApiRouter::new()
        .routes(routes!(register_user))
        .route_layer(from_fn(move |request, next| limited(limit.clone(), request, next)))
        .route_layer(from_fn(move |caller, request, next| {
            may_register(registration, caller, request, next)
        }));
    OpenApiRouter::new()
        .routes(routes!(list_users))
        .merge(registering)
        .routes(routes!(get_user, update_user, patch_user, delete_user))
        .routes(routes!(get_user_by_username))
        .merge(sessions::router::routes())
        .merge(me::router::routes())
        .merge(password_reset::router::routes())
}

permissions! {
    RegisterUsers: Scope::UsersWrite, "register users",
    ReadUsers: Scope::UsersRead, "read users",
    ChangeUsers: Scope::UsersWrite, "change users",
    DeleteUsers: Scope::Admin, "delete users",
}

/// Middleware: checks that the caller may register users under the setting `REGISTRATION`.
async fn may_register(
    registration: Registration,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response> {
    match registration {
        Registration::Open => {}
        Registration::Key => drop(Allowed::<RegisterUsers>::check(&caller)?),
        Registration::Closed => return Err(Error::Forbidden("Registration is closed".into())),
    }
    Ok(next.run(request).await)
}

/// Middleware: limits registrations. Callers with an API key are exempt, because each key has its
/// own rate limit.
async fn limited(throttle: Throttle, request: Request, next: Next) -> Result<Response> {
    let extensions = request.extensions();
    let is_known = matches!(extensions.get(), Some(Caller::Key(_)));
    if let Some(client) = extensions.get::<Client>().filter(|_| !is_known) {
        throttle.registration(client)?;
    }
    Ok(next.run(request).await)
}

/// Register a user.
///
/// Needs no API key by default. `REGISTRATION=key` requires one; `REGISTRATION=closed` refuses all
/// registrations.
#[utoipa::path(
    post, path = "", tag = "users", security((), ("api_key" = [])), request_body = CreateUser,
    responses(
        (status = 201, body = User),
        (status = 400, description = "The email or username is already in use", body = ErrorBody,
            example = json!({"detail": "Email or username already registered"})),
        (status = 403, description = "Registration is closed, or requires an API key with `users:write`", body = ErrorBody),
    ),
)]
async fn register_user(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    Extension(client): Extension<Client>,
    Json(new): Json<CreateUser>,
) -> Result<(StatusCode, JsonResponse<User>)> {
    let actor = match &caller {
        Caller::Key(actor) => Some(actor),
        Caller::SignedIn(_) | Caller::Anonymous(_) => None,
    };
    Ok((StatusCode::CREATED, JsonResponse(service::register(&app, &new, actor, &client).await?)))
}

/// List users.
///
/// Sorted by id.
#[utoipa::path(
    get, path = "", tag = "users", security(("api_key" = [])), params(Window<OldestFirst>),
    responses((status = 200, body = Vec<PublicUser>)),
)]
async fn list_users(
    State(db): State<Db>,
    _caller: Allowed<ReadUsers>,
    Query(window): Query<Window<OldestFirst>>,
) -> Result<ListPage<PublicUser>> {
    service::list(&db, window).await
}

/// Get a user.
#[utoipa::path(
    get, path = "/{user_id}", tag = "users", security(("api_key" = [])),
    params(("user_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 200, body = User), (status = 404, description = "User not found", body = ErrorBody)),
)]
async fn get_user(
    State(db): State<Db>,
    _caller: Allowed<ReadUsers>,
    Path(id): Path<i64>,
) -> Result<JsonResponse<User>> {
    service::get(&db, id).await.map(JsonResponse)
}

/// Get a user's public profile by username.
///
/// Needs no credential.
#[utoipa::path(
    get, path = "/username/{username}", tag = "users",
    params(("username" = String, Path, min_length = 1, max_length = 100, example = "alice")),
    responses((status = 200, body = PublicUser), (status = 404, description = "User not found", body = ErrorBody)),
)]
async fn get_user_by_username(
    State(db): State<Db>,
    Path(Username(username)): Path<Username>,
) -> Result<JsonResponse<PublicUser>> {
    service::get_by_username(&db, &username).await.map(JsonResponse)
}

/// Update a user.
///
/// Changes only the fields that are sent. A change of `password`, `email` or `is_active` requires
/// an admin key.
#[utoipa::path(
    put, path = "/{user_id}", tag = "users", security(("api_key" = [])), request_body = UpdateUser,
    params(("user_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = User),
        (status = 204, description = "Updated; the key has no `users:read`"),
        (status = 400, description = "The email or username is already in use", body = ErrorBody,
            example = json!({"detail": "Email or username already registered"})),
        (status = 404, description = "User not found", body = ErrorBody),
    ),
)]
async fn update_user(
    State(app): State<AppState>,
    caller: Allowed<ChangeUsers>,
    Path(id): Path<i64>,
    Json(changes): Json<UpdateUser>,
) -> Result<OrNoContent<JsonResponse<User>>> {
    change_user(&app, &caller, id, &changes).await
}

/// Patch a user.
///
/// The body is a JSON Merge Patch (RFC 7396): absent fields stay unchanged, and null clears
/// `full_name`. A change of `password`, `email` or `is_active` requires an admin key.
#[utoipa::path(
    patch, path = "/{user_id}", tag = "users", security(("api_key" = [])),
    request_body(content((PatchUser = "application/json"), (PatchUser = "application/merge-patch+json"))),
    params(("user_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = User),
        (status = 204, description = "Updated; the key has no `users:read`"),
        (status = 400, description = "The email or username is already in use", body = ErrorBody,
            example = json!({"detail": "Email or username already registered"})),
        (status = 404, description = "User not found", body = ErrorBody),
    ),
)]
async fn patch_user(
    State(app): State<AppState>,
    caller: Allowed<ChangeUsers>,
    Path(id): Path<i64>,
    Json(changes): Json<PatchUser>,
) -> Result<OrNoContent<JsonResponse<User>>> {
    change_user(&app, &caller, id, &changes).await
}

/// Changes a user. Returns the user only if the caller may read it.
async fn change_user(
    app: &AppState,
    caller: &Allowed<ChangeUsers>,
    id: i64,
    changes: &RequestedChanges,
) -> Result<OrNoContent<JsonResponse<User>>> {
    let user = service::update(app, &caller.actor, id, changes).await?;
    Ok(OrNoContent(caller.may_read().then_some(JsonResponse(user))))
}

/// Delete a user.
///
/// Their messages are kept without an author.
#[utoipa::path(
    delete, path = "/{user_id}", tag = "users", security(("api_key" = [])),
    params(("user_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 204, description = "Deleted"), (status = 404, description = "User not found", body = ErrorBody)),
)]
async fn delete_user(
    State(app): State<AppState>,
    caller: Allowed<DeleteUsers>,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    service::delete(&app, &caller.actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
