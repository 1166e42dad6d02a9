//! The routes of users: who may call them, what they take and answer.

use super::model::{CreateUser, PublicUser, UpdateUser, User, Username};
use super::{me, password_reset, service, sessions};
use crate::core::config::Registration;
use crate::core::error::{Error, ErrorBody, Result};
use crate::db::Db;
use crate::http::{Client, Json, Listed, OldestFirst, OrNoContent, Path, Query, Window};
use crate::security::throttle::Throttle;
use crate::security::{Allowed, Caller, Scope, permissions};
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Extension, Json as Answer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below `/users`; `registration` says who may register.
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
        .routes(routes!(get_user, update_user, delete_user))
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

/// Lets through who may register, as `REGISTRATION` says.
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

/// Limits registrations, but not those of somebody with a key: a key has a limit of its own.
async fn limited(throttle: Throttle, request: Request, next: Next) -> Result<Response> {
    let extensions = request.extensions();
    let is_known = matches!(extensions.get(), Some(Caller::Known(_)));
    if let Some(client) = extensions.get::<Client>().filter(|_| !is_known) {
        throttle.registration(client)?;
    }
    Ok(next.run(request).await)
}

/// Register a user.
///
/// Needs no key, unless `REGISTRATION` says otherwise.
#[utoipa::path(
    post, path = "", tag = "users", security((), ("api_key" = [])), request_body = CreateUser,
    responses(
        (status = 201, body = User),
        (status = 400, description = "The email or the username is taken", body = ErrorBody,
            example = json!({"detail": "Email or username already registered"})),
        (status = 403, description = "Registration is closed, or needs a key with `write`", body = ErrorBody),
    ),
)]
async fn register_user(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    Extension(client): Extension<Client>,
    Json(new): Json<CreateUser>,
) -> Result<(StatusCode, Answer<User>)> {
    let actor = match &caller {
        Caller::Known(actor) => Some(actor),
        Caller::LoggedIn(_) | Caller::Unknown(_) => None,
    };
    Ok((StatusCode::CREATED, Answer(service::register(&app, &new, actor, &client).await?)))
}

/// List users, by id.
#[utoipa::path(
    get, path = "", tag = "users", security(("api_key" = [])), params(Window<OldestFirst>),
    responses((status = 200, body = Vec<PublicUser>)),
)]
async fn list_users(
    State(db): State<Db>,
    _caller: Allowed<ReadUsers>,
    Query(window): Query<Window<OldestFirst>>,
) -> Result<Listed<PublicUser>> {
    service::list(&db, window).await
}

/// Get one user.
#[utoipa::path(
    get, path = "/{user_id}", tag = "users", security(("api_key" = [])),
    params(("user_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 200, body = User), (status = 404, description = "No such user", body = ErrorBody)),
)]
async fn get_user(
    State(db): State<Db>,
    _caller: Allowed<ReadUsers>,
    Path(id): Path<i64>,
) -> Result<Answer<User>> {
    service::get(&db, id).await.map(Answer)
}

/// Get what everybody may see of a user, by name.
#[utoipa::path(
    get, path = "/username/{username}", tag = "users",
    params(("username" = String, Path, min_length = 1, max_length = 100, example = "alice")),
    responses((status = 200, body = PublicUser), (status = 404, description = "No such user", body = ErrorBody)),
)]
async fn get_user_by_username(
    State(db): State<Db>,
    Path(Username(username)): Path<Username>,
) -> Result<Answer<PublicUser>> {
    service::get_by_username(&db, &username).await.map(Answer)
}

/// Change a user. Only the fields sent change; password, email and status by admin keys only.
#[utoipa::path(
    put, path = "/{user_id}", tag = "users", security(("api_key" = [])), request_body = UpdateUser,
    params(("user_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = User),
        (status = 204, description = "Changed, by a key without `users:read`"),
        (status = 400, description = "The email or the username is taken", body = ErrorBody,
            example = json!({"detail": "Email or username already registered"})),
        (status = 404, description = "No such user", body = ErrorBody),
    ),
)]
async fn update_user(
    State(app): State<AppState>,
    caller: Allowed<ChangeUsers>,
    Path(id): Path<i64>,
    Json(changes): Json<UpdateUser>,
) -> Result<OrNoContent<Answer<User>>> {
    let user = service::update(&app, &caller.actor, id, &changes).await?;
    Ok(OrNoContent(caller.may_read().then_some(Answer(user))))
}

/// Delete a user. Their messages stay, as nobody's.
#[utoipa::path(
    delete, path = "/{user_id}", tag = "users", security(("api_key" = [])),
    params(("user_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 204, description = "Deleted"), (status = 404, description = "No such user", body = ErrorBody)),
)]
async fn delete_user(
    State(app): State<AppState>,
    caller: Allowed<DeleteUsers>,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    service::delete(&app, &caller.actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
