//! HTTP routes for API keys: permissions, requests and responses.

use super::admission::{BootstrapRequest, is_forwarded};
use super::bootstrap::{self, BootstrapAnswer};
use super::model::{
    ApiKey, ApiKeyFilter, AuditFilter, AuditLog, CleanupReport, CreateApiKey, CreatedApiKey,
    ExpiryPeriod, RotateApiKey, UpdateApiKey, UsageFilter, UsageReport, VerifiedApiKey,
    VerifyApiKey,
};
use super::service;
use crate::core::error::{ErrorBody, Result};
use crate::http::{
    Client, Idempotent, Json, ListPage, NewestFirst, NoBody, OldestFirst, Path, Query, RequestId,
    Window, host,
};
use crate::security::rate_limit::Throttle;
use crate::security::{Allowed, AnyKey, Scope, permissions};
use crate::state::AppState;
use axum::extract::{ConnectInfo, State};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::from_extractor;
use axum::{Extension, Json as JsonResponse};
use std::net::SocketAddr;
use tower::util::option_layer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes under `/api-keys`.
pub fn routes(throttle: &Throttle) -> OpenApiRouter<AppState> {
    // The scope is checked before the rate limit, so that a caller without it cannot use up the
    // limit.
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

/// The `/bootstrap` route, at the root.
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

/// OpenAPI description of 403 for operations that set a key's limits.
const STRONGER: &str = "The scope is missing, the client address is not allowed, or the result would \
    exceed the limits of the caller's key: the error names the fields";

/// Create the first API key.
///
/// Works once, while the installation has no API key. Needs no credential. Create further keys
/// with an admin key. Send `Octopus-Bootstrap-Token` if `BOOTSTRAP_TOKEN` is set, or if the request
/// comes from a public address; without `BOOTSTRAP_TOKEN`, the server logs a token at startup.
/// Without a token, `Host` must be an IP address, `localhost` or a name in `ALLOWED_HOSTS`.
#[utoipa::path(
    post, path = "/bootstrap", tag = "bootstrap",
    params(("Octopus-Bootstrap-Token" = Option<String>, Header, description = "The value of `BOOTSTRAP_TOKEN`; if it is not set, the token from the server log")),
    responses(
        (status = 200, body = BootstrapAnswer),
        (status = 400, description = "An API key already exists", body = ErrorBody,
            example = json!({"detail": "Bootstrap already completed. Use an admin API key to create more API keys."})),
        (status = 403, description = "The token is wrong or missing, the origin or host name is not allowed, or the bootstrap window is over", body = ErrorBody),
    ),
)]
async fn bootstrap(
    State(app): State<AppState>,
    Extension(client): Extension<Client>,
    Extension(request_id): Extension<RequestId>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    target: Uri,
    headers: HeaderMap,
) -> Result<JsonResponse<BootstrapAnswer>> {
    let field = |name: &str| headers.get(name).map(axum::http::HeaderValue::as_bytes);
    let call = BootstrapRequest {
        token: field("octopus-bootstrap-token"),
        fetch_site: field("sec-fetch-site"),
        origins: headers.get_all(ORIGIN).iter().map(|o| o.to_str().unwrap_or_default()).collect(),
        host: host::of(&target, &headers),
        peer: peer.ip(),
        client,
        is_forwarded: is_forwarded(&headers),
        request_id,
    };
    let created = bootstrap::from_request(&app, call).await?;
    Ok(JsonResponse(created.into()))
}

/// Create an API key.
///
/// The response contains the key secret, which is never shown again. A request that repeats an
/// `Idempotency-Key` does not create a second key.
#[utoipa::path(
    post, path = "", tag = "api-keys", security(("api_key" = [])), request_body = CreateApiKey,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "Visible ASCII characters, unique for each new API key; kept for one day")),
    responses(
        (status = 201, body = CreatedApiKey),
        (status = 403, description = STRONGER, body = ErrorBody),
        (status = 409, description = "A request with this `Idempotency-Key` already created a key; the error gives its id", body = ErrorBody),
    ),
)]
async fn create_api_key(
    State(app): State<AppState>,
    caller: Allowed<CreateKeys>,
    Idempotent(new, idempotency): Idempotent<CreateApiKey>,
) -> Result<(StatusCode, JsonResponse<CreatedApiKey>)> {
    let idempotency = idempotency.map(|key| key.of(caller.actor.credential()));
    let created =
        service::create(&app, &(&caller.actor).into(), &new, idempotency.as_ref()).await?;
    Ok((StatusCode::CREATED, JsonResponse(created)))
}

/// Verify an API key for another service.
///
/// Returns 200 for every well-formed request; `code` is the result. The verification counts as a
/// use of the key and against its rate limit.
#[utoipa::path(
    post, path = "/verify", tag = "api-keys", security(("api_key" = [])), request_body = VerifyApiKey,
    responses((status = 200, body = VerifiedApiKey)),
)]
async fn verify_api_key(
    State(app): State<AppState>,
    _caller: Allowed<VerifyKeys>,
    Json(request): Json<VerifyApiKey>,
) -> Result<JsonResponse<VerifiedApiKey>> {
    service::verify(&app, &request).await.map(JsonResponse)
}

/// List API keys.
///
/// Sorted by id.
#[utoipa::path(
    get, path = "", tag = "api-keys", security(("api_key" = [])), params(ApiKeyFilter, Window<OldestFirst>),
    responses((status = 200, body = Vec<ApiKey>)),
)]
async fn list_api_keys(
    State(app): State<AppState>,
    _caller: Allowed<ReadKeys>,
    Query((filter, window)): Query<(ApiKeyFilter, Window<OldestFirst>)>,
) -> Result<ListPage<ApiKey>> {
    service::list(&app, &filter, window).await
}

/// Get the current API key.
///
/// The key that authenticates the request.
#[utoipa::path(
    get, path = "/me", tag = "api-keys", security(("api_key" = [])),
    responses((status = 200, body = ApiKey)),
)]
async fn get_own_api_key(
    State(app): State<AppState>,
    caller: Allowed<AnyKey>,
) -> Result<JsonResponse<ApiKey>> {
    service::own(&app, caller.actor.key()).await.map(JsonResponse)
}

/// Get an API key.
///
/// The response does not contain the secret.
#[utoipa::path(
    get, path = "/{api_key_id}", tag = "api-keys", security(("api_key" = [])),
    params(("api_key_id" = i64, Path, minimum = 1, example = 1)),
    responses((status = 200, body = ApiKey), (status = 404, description = "API key not found", body = ErrorBody)),
)]
async fn get_api_key(
    State(app): State<AppState>,
    _caller: Allowed<ReadKeys>,
    Path(id): Path<i64>,
) -> Result<JsonResponse<ApiKey>> {
    service::get(&app, id).await.map(JsonResponse)
}

/// Update an API key.
///
/// Changes only the fields that are sent.
#[utoipa::path(
    patch, path = "/{api_key_id}", tag = "api-keys", security(("api_key" = [])),
    request_body(content((UpdateApiKey = "application/json"), (UpdateApiKey = "application/merge-patch+json"))),
    params(("api_key_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = ApiKey),
        (status = 400, description = "The key is the one that authenticates the request", body = ErrorBody),
        (status = 403, description = STRONGER, body = ErrorBody),
        (status = 404, description = "API key not found", body = ErrorBody),
        (status = 409, description = "The key was rotated, has expired or is the last admin key, or the change would lock out the caller", body = ErrorBody),
    ),
)]
async fn update_api_key(
    State(app): State<AppState>,
    caller: Allowed<UpdateKeys>,
    Path(id): Path<i64>,
    Json(changes): Json<UpdateApiKey>,
) -> Result<JsonResponse<ApiKey>> {
    service::update(&app, &(&caller.actor).into(), id, &changes).await.map(JsonResponse)
}

/// Deactivate an API key.
///
/// The key is kept and can be reactivated with an update. Idempotent.
#[utoipa::path(
    post, path = "/{api_key_id}/deactivate", tag = "api-keys", security(("api_key" = [])),
    params(("api_key_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 200, body = ApiKey),
        (status = 400, description = "The key is the one that authenticates the request", body = ErrorBody,
            example = json!({"detail": "Cannot deactivate the API key you're currently using"})),
        (status = 404, description = "API key not found", body = ErrorBody),
        (status = 409, description = "The key is the last admin key", body = ErrorBody),
    ),
)]
async fn deactivate_api_key(
    State(app): State<AppState>,
    caller: Allowed<DeactivateKeys>,
    Path(id): Path<i64>,
    _: NoBody,
) -> Result<JsonResponse<ApiKey>> {
    service::deactivate(&app, &(&caller.actor).into(), id).await.map(JsonResponse)
}

/// Delete an API key.
///
/// Its audit entries are kept.
#[utoipa::path(
    delete, path = "/{api_key_id}", tag = "api-keys", security(("api_key" = [])),
    params(("api_key_id" = i64, Path, minimum = 1, example = 1)),
    responses(
        (status = 204, description = "Deleted"),
        (status = 400, description = "The key is the one that authenticates the request", body = ErrorBody,
            example = json!({"detail": "Cannot delete the API key you're currently using"})),
        (status = 404, description = "API key not found", body = ErrorBody),
        (status = 409, description = "The key is the last admin key", body = ErrorBody),
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

/// Rotate an API key.
///
/// Creates a new key with the same properties. The old key stops working immediately, or stays
/// valid for `grace_period_seconds`. During the grace period, responses to requests with the old
/// key give its expiry in `Octopus-API-Key-Expires`. The response contains the new secret, which is
/// never shown again. Set a grace period when you rotate the key you are using: if the response is
/// lost, a deactivated key cannot be used to recover.
#[utoipa::path(
    post, path = "/{api_key_id}/rotate", tag = "api-keys", security(("api_key" = [])),
    request_body = Option<RotateApiKey>,
    params(
        ("api_key_id" = i64, Path, minimum = 1, example = 1),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Visible ASCII characters, unique for each rotation; kept for one day"),
    ),
    responses(
        (status = 200, body = CreatedApiKey),
        (status = 403, description = STRONGER, body = ErrorBody),
        (status = 404, description = "API key not found", body = ErrorBody),
        (status = 409, description = "The key is inactive, has expired or was already rotated, possibly by a request with this `Idempotency-Key`", body = ErrorBody),
    ),
)]
async fn rotate_api_key(
    State(app): State<AppState>,
    caller: Allowed<RotateKeys>,
    Path(id): Path<i64>,
    Idempotent(rotation, idempotency): Idempotent<RotateApiKey>,
) -> Result<JsonResponse<CreatedApiKey>> {
    let by = (&caller.actor).into();
    let idempotency = idempotency.map(|key| key.of(caller.actor.credential()));
    service::rotate(&app, &by, id, rotation, idempotency.as_ref()).await.map(JsonResponse)
}

/// Get usage statistics of an API key.
///
/// Counts requests per hour or day, by result.
#[utoipa::path(
    get, path = "/{api_key_id}/usage", tag = "api-keys", security(("api_key" = [])),
    params(("api_key_id" = i64, Path, minimum = 1, example = 1), UsageFilter),
    responses((status = 200, body = UsageReport), (status = 404, description = "API key not found", body = ErrorBody)),
)]
async fn get_api_key_usage(
    State(app): State<AppState>,
    _caller: Allowed<ReadKeys>,
    Path(id): Path<i64>,
    Query(filter): Query<UsageFilter>,
) -> Result<JsonResponse<UsageReport>> {
    service::usage(&app, id, &filter).await.map(JsonResponse)
}

/// List audit entries.
///
/// Newest first, unless `order=asc`.
#[utoipa::path(
    get, path = "/audit-logs", tag = "api-keys", security(("api_key" = [])), params(AuditFilter, Window<NewestFirst>),
    responses((status = 200, body = Vec<AuditLog>)),
)]
async fn list_audit_logs(
    State(app): State<AppState>,
    _caller: Allowed<ReadAuditLogs>,
    Query((filter, window)): Query<(AuditFilter, Window<NewestFirst>)>,
) -> Result<ListPage<AuditLog>> {
    service::audit_logs(&app, &filter, window).await
}

/// List active API keys that expire soon.
///
/// Sorted by expiry, the earliest first.
#[utoipa::path(
    get, path = "/expiring", tag = "api-keys", security(("api_key" = [])), params(ExpiryPeriod, Window<OldestFirst>),
    responses((status = 200, body = Vec<ApiKey>)),
)]
async fn list_expiring_api_keys(
    State(app): State<AppState>,
    _caller: Allowed<ReadKeys>,
    Query((horizon, window)): Query<(ExpiryPeriod, Window<OldestFirst>)>,
) -> Result<ListPage<ApiKey>> {
    service::expiring(&app, horizon.days, window).await
}

/// Deactivate expired API keys.
///
/// The server also does this periodically.
#[utoipa::path(
    post, path = "/cleanup-expired", tag = "api-keys", security(("api_key" = [])),
    responses((status = 200, body = CleanupReport)),
)]
async fn cleanup_expired_api_keys(
    State(app): State<AppState>,
    caller: Allowed<CleanUpKeys>,
    _: NoBody,
) -> Result<JsonResponse<CleanupReport>> {
    service::cleanup_expired(&app, &(&caller.actor).into()).await.map(JsonResponse)
}
