//! The routes of the administration.

use super::service::{self, AnchorFilter, Stats};
use crate::audit::Verification;
use crate::core::error::Result;
use crate::http::{NoBody, Query};
use crate::security::{Allowed, Scope, permissions};
use crate::state::AppState;
use axum::Json as Answer;
use axum::extract::State;
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

permissions! {
    Administer: Scope::Admin, "administer Octopus",
    VerifyAuditTrail: Scope::AuditRead, "verify the audit trail",
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
