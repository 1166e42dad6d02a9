//! The routes of the administration.

use super::export::{self, ExportRange};
use super::service::{self, AnchorFilter, Stats};
use crate::audit::Verification;
use crate::core::error::Result;
use crate::http::{NoBody, Query};
use crate::security::{Allowed, Scope, permissions};
use crate::state::AppState;
use axum::Json as Answer;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below `/admin`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_schwifty))
        .routes(routes!(get_stats))
        .routes(routes!(verify_audit_trail))
}

/// The routes below `/audit`.
pub fn audit_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(export_audit_log))
}

permissions! {
    Administer: Scope::Admin, "administer Octopus",
    VerifyAuditTrail: Scope::AuditRead, "verify the audit trail",
    ExportAuditLog: Scope::AuditRead, "export the audit log",
}

/// A word from the administration.
#[derive(Debug, Serialize, ToSchema)]
struct AdminMessage {
    #[schema(example = "Admin getting schwifty")]
    message: &'static str,
}

/// See whether a key is an admin's.
#[utoipa::path(
    post, path = "", tag = "admin", security(("api_key" = [])),
    responses((status = 200, body = AdminMessage)),
)]
async fn get_schwifty(_caller: Allowed<Administer>, _: NoBody) -> Answer<AdminMessage> {
    Answer(AdminMessage { message: "Admin getting schwifty" })
}

/// See the installation at a glance.
#[utoipa::path(
    get, path = "/stats", tag = "admin", security(("api_key" = [])),
    responses((status = 200, body = Stats)),
)]
async fn get_stats(
    State(app): State<AppState>,
    _caller: Allowed<Administer>,
) -> Result<Answer<Stats>> {
    service::stats(&app).await.map(Answer)
}

/// Recompute the audit chain.
///
/// Names the first row that is missing, changed, moved or cut off, and each property of an API key
/// that is not what the log says. A chain that is cut off at its end shows only against an anchor:
/// an end that was noted earlier, from here or from the log.
#[utoipa::path(
    get, path = "/audit/verify", tag = "admin", security(("api_key" = [])), params(AnchorFilter),
    responses((status = 200, body = Verification)),
)]
async fn verify_audit_trail(
    State(app): State<AppState>,
    _caller: Allowed<VerifyAuditTrail>,
    Query(filter): Query<AnchorFilter>,
) -> Result<Answer<Verification>> {
    service::verify_audit_trail(&app, &filter).await.map(Answer)
}

/// Export the audit log as JSON lines.
///
/// The oldest entry first, each with the fields of the chain: `seq`, `hash_key_id`, `payload` (the
/// entry as JSON, byte for byte as it was signed) and `hash`. `after` continues an earlier export.
/// A response that breaks off is incomplete.
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
