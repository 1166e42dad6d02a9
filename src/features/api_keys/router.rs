//! The routes of API keys: who may call them, what they take and answer.

use super::admission::{BootstrapCall, is_forwarded};
use super::bootstrap::{self, BootstrapAnswer};
use super::model::{
    ApiKey, AuditFilter, AuditLog, CleanupReport, CreateApiKey, CreatedApiKey, Horizon, KeyFilter,
    RotateApiKey, UpdateApiKey, UsageFilter, UsageReport, VerifiedApiKey, VerifyApiKey,
};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::http::{
    Client, Idempotent, Json, Listed, NewestFirst, NoBody, OldestFirst, Path, Query, RequestId,
    Window, host,
};
use crate::security::throttle::Throttle;
use crate::security::{Allowed, AnyKey, Scope, permissions};
use crate::state::AppState;
use axum::extract::{ConnectInfo, State};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::from_extractor;
use axum::{Extension, Json as Answer};
use std::net::SocketAddr;
use tower::util::option_layer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below `/api-keys`.
pub fn routes(throttle: &Throttle) -> OpenApiRouter<AppState> {
    // A caller without the scope must not use up the allowance: it is checked before.
    let creation = OpenApiRouter::new()
        .routes(routes!(create_api_key))
        .route_layer(option_layer(throttle.key_creation()))
        .route_layer(from_extractor::<Allowed<CreateKeys>>());
    OpenApiRouter::new()
        .routes(routes!(list_api_keys))
        .merge(creation)
        .routes(routes!(get_own_api_key))
        .routes(routes!(verify_api_key))
        .routes(routes!(list_audit_logs))
        .routes(routes!(list_expiring_api_keys))
        .routes(routes!(cleanup_expired_api_keys))
        .routes(routes!(get_api_key, update_api_key, delete_api_key))
        .routes(routes!(deactivate_api_key))
        .routes(routes!(rotate_api_key))
        .routes(routes!(get_api_key_usage))
}

/// `/bootstrap`, at the root.
pub fn bootstrap_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(bootstrap))
}

permissions! {
    ReadKeys: Scope::Admin, "read API keys",
    CreateKeys: Scope::Admin, "create API keys",
    UpdateKeys: Scope::Admin, "update API keys",
    DeactivateKeys: Scope::Admin, "deactivate API keys",
    DeleteKeys: Scope::Admin, "delete API keys",
    RotateKeys: Scope::Admin, "rotate API keys",
    VerifyKeys: Scope::KeysVerify, "verify API keys",
    ReadAuditLogs: Scope::AuditRead, "read audit logs",
    CleanUpKeys: Scope::Admin, "clean up expired API keys",
}

/// Why a change is refused to a key that has the scope.
const STRONGER: &str = "The API key may not do this, or not from this address, or the result would be \
    stronger than the key in use: the fields that exceed it are named";

/// Create the first API key.
///
/// Works once, without a credential, while the installation has no key; afterwards admin keys make
/// others. Needs a token where `BOOTSTRAP_TOKEN` is set, and from public addresses: there it is the
/// one that the server logs when it starts. Without a token, `Host` must be an IP address,
/// `localhost` or a name in `ALLOWED_HOSTS`.
#[utoipa::path(
    post, path = "/bootstrap", tag = "bootstrap",
    params(("Octopus-Bootstrap-Token" = Option<String>, Header, description = "The value of BOOTSTRAP_TOKEN, or else the token in the server's log")),
    responses(
        (status = 200, body = BootstrapAnswer),
        (status = 400, description = "There is a key already", body = ErrorBody,
            example = json!({"detail": "Bootstrap already completed. Use an admin API key to create more API keys."})),
        (status = 403, description = "Wrong or missing token, another web site or host name, or too late", body = ErrorBody),
    ),
)]
async fn bootstrap(
    State(app): State<AppState>,
    Extension(client): Extension<Client>,
    Extension(request_id): Extension<RequestId>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    target: Uri,
    headers: HeaderMap,
) -> Result<Answer<BootstrapAnswer>> {
    let field = |name: &str| headers.get(name).map(axum::http::HeaderValue::as_bytes);
    let call = BootstrapCall {
        token: field("octopus-bootstrap-token"),
        fetch_site: field("sec-fetch-site"),
        origins: headers.get_all(ORIGIN).iter().map(|o| o.to_str().unwrap_or_default()).collect(),
        host: host::of(&target, &headers),
        peer: peer.ip(),
        client,
        is_forwarded: is_forwarded(&headers),
        request_id,
    };
    let created = bootstrap::by_call(&app, call).await?;
    Ok(Answer(created.into()))
}

/// Create an API key.
///
/// The answer holds the key's secret, which is never shown again. With an `Idempotency-Key`, a
/// request that is sent again makes no second key.
#[utoipa::path(
    post, path = "", tag = "api-keys", security(("api_key" = [])), request_body = CreateApiKey,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "Any text of visible ASCII characters, new for each key that is wanted; kept for a day")),
    responses(
        (status = 201, body = CreatedApiKey),
        (status = 403, description = STRONGER, body = ErrorBody),
        (status = 409, description = "The same request made a key before, which is named", body = ErrorBody),
    ),
)]
async fn create_api_key(
    State(app): State<AppState>,
    caller: Allowed<CreateKeys>,
    Idempotent(new, once): Idempotent<CreateApiKey>,
) -> Result<(StatusCode, Answer<CreatedApiKey>)> {
    let once = once.map(|key| key.of(caller.actor.credential()));
    let created = service::create(&app, &(&caller.actor).into(), &new, once.as_ref()).await?;
    Ok((StatusCode::CREATED, Answer(created)))
}

/// Ask whether an API key is good, for another service.
///
/// Always 200 when the question is understood; `code` says how the key is. Counts as a use of that
/// key, and against its limit.
#[utoipa::path(
    post, path = "/verify", tag = "api-keys", security(("api_key" = [])), request_body = VerifyApiKey,
    responses((status = 200, body = VerifiedApiKey)),
)]
async fn verify_api_key(
    State(app): State<AppState>,
    _caller: Allowed<VerifyKeys>,
    Json(question): Json<VerifyApiKey>,
) -> Result<Answer<VerifiedApiKey>> {
    service::verify(&app, &question).await.map(Answer)
}

/// List API keys, by id.
#[utoipa::path(
    get, path = "", tag = "api-keys", security(("api_key" = [])), params(KeyFilter, Window<OldestFirst>),
    responses((status = 200, body = Vec<ApiKey>)),
)]
async fn list_api_keys(
    State(app): State<AppState>,
    _caller: Allowed<ReadKeys>,
    Query((filter, window)): Query<(KeyFilter, Window<OldestFirst>)>,
) -> Result<Listed<ApiKey>> {
    service::list(&app, &filter, window).await
}

/// Get the API key the request is made with.
#[utoipa::path(
    get, path = "/me", tag = "api-keys", security(("api_key" = [])),
    responses((status = 200, body = ApiKey)),
)]
async fn get_own_api_key(
    State(app): State<AppState>,
    caller: Allowed<AnyKey>,
) -> Result<Answer<ApiKey>> {
    service::own(&app, caller.actor.key()).await.map(Answer)
}

/// Get one API key, without its secret.
#[utoipa::path(
    get, path = "/{api_key_id}", tag = "api-keys", security(("api_key" = [])),
    params(("api_key_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 200, body = ApiKey), (status = 404, description = "No such key", body = ErrorBody)),
)]
async fn get_api_key(
    State(app): State<AppState>,
    _caller: Allowed<ReadKeys>,
    Path(id): Path<i64>,
) -> Result<Answer<ApiKey>> {
    service::get(&app, id).await.map(Answer)
}

/// Change an API key. Only the fields sent change.
#[utoipa::path(
    patch, path = "/{api_key_id}", tag = "api-keys", security(("api_key" = [])), request_body = UpdateApiKey,
    params(("api_key_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = ApiKey),
        (status = 400, description = "It is the key in use", body = ErrorBody),
        (status = 403, description = STRONGER, body = ErrorBody),
        (status = 404, description = "No such key", body = ErrorBody),
        (status = 409, description = "It was rotated, has expired, is the last admin key, or would lock you out", body = ErrorBody),
    ),
)]
async fn update_api_key(
    State(app): State<AppState>,
    caller: Allowed<UpdateKeys>,
    Path(id): Path<i64>,
    Json(changes): Json<UpdateApiKey>,
) -> Result<Answer<ApiKey>> {
    service::update(&app, &(&caller.actor).into(), id, &changes).await.map(Answer)
}

/// Deactivate an API key; its row stays.
#[utoipa::path(
    post, path = "/{api_key_id}/deactivate", tag = "api-keys", security(("api_key" = [])),
    params(("api_key_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = ApiKey),
        (status = 400, description = "It is the key in use", body = ErrorBody,
            example = json!({"detail": "Cannot deactivate the API key you're currently using"})),
        (status = 404, description = "No such key", body = ErrorBody),
        (status = 409, description = "It is the last admin key", body = ErrorBody),
    ),
)]
async fn deactivate_api_key(
    State(app): State<AppState>,
    caller: Allowed<DeactivateKeys>,
    Path(id): Path<i64>,
    _: NoBody,
) -> Result<Answer<ApiKey>> {
    service::deactivate(&app, &(&caller.actor).into(), id).await.map(Answer)
}

/// Delete an API key; its audit rows stay.
#[utoipa::path(
    delete, path = "/{api_key_id}", tag = "api-keys", security(("api_key" = [])),
    params(("api_key_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 204, description = "Deleted"),
        (status = 400, description = "It is the key in use", body = ErrorBody,
            example = json!({"detail": "Cannot delete the API key you're currently using"})),
        (status = 404, description = "No such key", body = ErrorBody),
        (status = 409, description = "It is the last admin key", body = ErrorBody),
    ),
)]
async fn delete_api_key(
    State(app): State<AppState>,
    caller: Allowed<DeleteKeys>,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    service::delete(&app, &(&caller.actor).into(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Put a new API key in the place of one, with the same properties.
///
/// The old one stops working at once, or works beside the new one for `grace_period_seconds`; its
/// answers then say until when in `Octopus-API-Key-Expires`. The answer holds the new secret, which
/// is never shown again: give a grace period when you rotate the key you use, as one that is off
/// cannot ask what became of a lost answer.
#[utoipa::path(
    post, path = "/{api_key_id}/rotate", tag = "api-keys", security(("api_key" = [])),
    request_body = Option<RotateApiKey>,
    params(
        ("api_key_id" = i64, Path, minimum = 1, example = 1),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Any text of visible ASCII characters, new for each rotation; kept for a day"),
    ),
    responses(
        (status = 200, body = CreatedApiKey),
        (status = 403, description = STRONGER, body = ErrorBody),
        (status = 404, description = "No such key", body = ErrorBody),
        (status = 409, description = "It is inactive, has expired or was rotated, maybe by the same request", body = ErrorBody),
    ),
)]
async fn rotate_api_key(
    State(app): State<AppState>,
    caller: Allowed<RotateKeys>,
    Path(id): Path<i64>,
    Idempotent(rotation, once): Idempotent<RotateApiKey>,
) -> Result<Answer<CreatedApiKey>> {
    let by = (&caller.actor).into();
    let once = once.map(|key| key.of(caller.actor.credential()));
    service::rotate(&app, &by, id, rotation, once.as_ref()).await.map(Answer)
}

/// See how often an API key was used, and how that went.
#[utoipa::path(
    get, path = "/{api_key_id}/usage", tag = "api-keys", security(("api_key" = [])),
    params(("api_key_id" = i64, Path, minimum = 1, example = 1), UsageFilter),
    responses((status = 200, body = UsageReport), (status = 404, description = "No such key", body = ErrorBody)),
)]
async fn get_api_key_usage(
    State(app): State<AppState>,
    _caller: Allowed<ReadKeys>,
    Path(id): Path<i64>,
    Query(filter): Query<UsageFilter>,
) -> Result<Answer<UsageReport>> {
    service::usage(&app, id, &filter).await.map(Answer)
}

/// Read the audit trail, newest first.
#[utoipa::path(
    get, path = "/audit-logs", tag = "api-keys", security(("api_key" = [])), params(AuditFilter, Window<NewestFirst>),
    responses((status = 200, body = Vec<AuditLog>)),
)]
async fn list_audit_logs(
    State(app): State<AppState>,
    _caller: Allowed<ReadAuditLogs>,
    Query((filter, window)): Query<(AuditFilter, Window<NewestFirst>)>,
) -> Result<Listed<AuditLog>> {
    service::audit_logs(&app, &filter, window).await
}

/// List active API keys that end soon, the soonest first.
#[utoipa::path(
    get, path = "/expiring", tag = "api-keys", security(("api_key" = [])), params(Horizon, Window<OldestFirst>),
    responses((status = 200, body = Vec<ApiKey>)),
)]
async fn list_expiring_api_keys(
    State(app): State<AppState>,
    _caller: Allowed<ReadKeys>,
    Query((horizon, window)): Query<(Horizon, Window<OldestFirst>)>,
) -> Result<Listed<ApiKey>> {
    service::expiring(&app, horizon.days, window).await
}

/// Deactivate API keys whose end has come. The server does so by itself, too.
#[utoipa::path(
    post, path = "/cleanup-expired", tag = "api-keys", security(("api_key" = [])),
    responses((status = 200, body = CleanupReport)),
)]
async fn cleanup_expired_api_keys(
    State(app): State<AppState>,
    caller: Allowed<CleanUpKeys>,
    _: NoBody,
) -> Result<Answer<CleanupReport>> {
    service::cleanup_expired(&app, &(&caller.actor).into()).await.map(Answer)
}
