//! HTTP routes for administration.

use super::export::{self, ExportRange};
use super::model::{AnchorFilter, Stats};
use super::service;
use crate::audit::Verification;
use crate::core::error::Result;
use crate::http::{NoBody, Query};
use crate::security::{Allowed, Scope, permissions};
use crate::state::AppState;
use axum::Json as JsonResponse;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes under `/admin`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_schwifty))
        .routes(routes!(get_stats))
        .routes(routes!(verify_audit_trail))
}

/// Routes under `/audit`.
pub fn audit_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(export_audit_log))
}

permissions! {
    Administer: Scope::Admin, "administer Octopus",
    VerifyAuditLog: Scope::AuditRead, "verify the audit log",
    ExportAuditLog: Scope::AuditRead, "export the audit log",
}

/// Response to an admin key.
#[derive(Debug, Serialize, ToSchema)]
struct AdminMessage {
    #[schema(example = "Admin getting schwifty")]
    message: &'static str,
}

/// Check whether an API key has the admin scope.
#[utoipa::path(
    post, path = "", tag = "admin", security(("api_key" = [])),
    responses((status = 200, body = AdminMessage)),
)]
async fn get_schwifty(_caller: Allowed<Administer>, _: NoBody) -> JsonResponse<AdminMessage> {
    JsonResponse(AdminMessage { message: "Admin getting schwifty" })
}

/// Get installation statistics.
#[utoipa::path(
    get, path = "/stats", tag = "admin", security(("api_key" = [])),
    responses((status = 200, body = Stats)),
)]
async fn get_stats(
    State(app): State<AppState>,
    _caller: Allowed<Administer>,
) -> Result<JsonResponse<Stats>> {
    service::stats(&app).await.map(JsonResponse)
}

/// Verify the audit log.
///
/// Recomputes the audit chain. Reports the first entry that is missing, changed or moved, and each
/// property of an API key that differs from the audit log. A truncated chain is detected only by
/// comparison with an anchor: the head of the chain at an earlier time, from this response or from
/// the server log.
#[utoipa::path(
    get, path = "/audit/verify", tag = "admin", security(("api_key" = [])), params(AnchorFilter),
    responses((status = 200, body = Verification)),
)]
async fn verify_audit_trail(
    State(app): State<AppState>,
    _caller: Allowed<VerifyAuditLog>,
    Query(filter): Query<AnchorFilter>,
) -> Result<JsonResponse<Verification>> {
    service::verify_audit_trail(&app, &filter).await.map(JsonResponse)
}

/// Export the audit log as JSON lines.
///
/// Oldest entry first. Each line has `seq`, `hash_key_id`, `payload` (the entry as JSON, byte for
/// byte as it was signed) and `hash`. Use `after` to continue an earlier export. If the connection
/// ends early, the export is incomplete.
#[utoipa::path(
    get, path = "/export", tag = "admin", security(("api_key" = [])), params(ExportRange),
    responses((status = 200, body = String, content_type = "application/x-ndjson")),
)]
async fn export_audit_log(
    State(app): State<AppState>,
    _caller: Allowed<ExportAuditLog>,
    Query(range): Query<ExportRange>,
) -> Response {
    ([(CONTENT_TYPE, "application/x-ndjson")], export::audit_log(app, range)).into_response()
}
