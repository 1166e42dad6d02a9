//! Routes for health checks, without authentication or rate limits.

use crate::core::error::{Error, ErrorBody, Result};
use crate::core::transient_error::TransientError;
use crate::db::query;
use crate::http::UrlBase;
use crate::state::AppState;
use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long the result of a check is reused.
const CHECK_TTL: Duration = Duration::from_secs(1);
/// Timeout of each step of a check.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);

/// `/`, `/health` and `/ready`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(root))
        .routes(routes!(health))
        .routes(routes!(ready))
        .layer(Extension(Readiness::default()))
}

/// The result of the last check of the database, and its time.
#[derive(Clone, Default)]
struct Readiness(Arc<Mutex<Option<(Instant, Check)>>>);

/// The result of a check: success, or one of a few fixed reasons.
type Check = Result<(), &'static str>;

#[derive(Serialize, ToSchema)]
struct Hello {
    #[schema(example = "Hello! Visit /docs for API documentation")]
    message: String,
    #[schema(example = "0.1.0")]
    version: &'static str,
}

#[derive(Serialize, ToSchema)]
struct Status {
    #[schema(example = "healthy")]
    status: &'static str,
}

/// Get the server version.
#[utoipa::path(get, path = "/", tag = "health", responses((status = 200, body = Hello)))]
async fn root(base: UrlBase) -> Json<Hello> {
    let message = format!("Hello! Visit {base}/docs for API documentation");
    Json(Hello { message, version: env!("CARGO_PKG_VERSION") })
}

/// Check liveness.
///
/// Returns 200 if the process is running. Does not access the database.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = Status)))]
async fn health() -> Json<Status> {
    Json(Status { status: "healthy" })
}

/// Check readiness.
///
/// Returns 200 if the database is reachable, migrated and writable. The result of a check is reused
/// for one second.
#[utoipa::path(
    get, path = "/ready", tag = "health",
    responses(
        (status = 200, body = Status, example = json!({"status": "ready"})),
        (status = 503, description = "Not ready; `detail` is a fixed reason", body = ErrorBody,
            example = json!({"detail": "database unreachable"})),
    ),
)]
async fn ready(
    State(app): State<AppState>,
    Extension(readiness): Extension<Readiness>,
) -> Result<Json<Status>> {
    if app.stopping.is_cancelled() {
        return Err(Error::Unavailable("shutting down"));
    }
    // Concurrent requests wait for the running check and share its result.
    let mut last = readiness.0.lock().await;
    let result = match *last {
        Some((at, result)) if at.elapsed() < CHECK_TTL => result,
        _ => {
            let result = check(&app).await;
            *last = Some((Instant::now(), result));
            result
        }
    };
    result.map(|()| Json(Status { status: "ready" })).map_err(Error::Unavailable)
}

/// Returns whether a table does not exist: `undefined_table` on Postgres. SQLite has no code for
/// it.
fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
    })
}

fn reason(error: &sqlx::Error) -> Option<&'static str> {
    TransientError::of(error).map(TransientError::reason)
}

async fn check(app: &AppState) -> Check {
    const READ: &str = "SELECT version FROM installation WHERE id = 1";
    let read = async { query(&app.db, READ).optional::<(i64,)>().await };
    match timeout(STEP_TIMEOUT, read).await {
        Ok(Ok(Some(_))) => {}
        Ok(Ok(None)) => return Err("database not migrated"),
        Ok(Err(error)) if is_missing_table(&error) => return Err("database not migrated"),
        Ok(Err(error)) => return Err(reason(&error).unwrap_or("database unreachable")),
        Err(_) => return Err("database unreachable"),
    }
    match timeout(STEP_TIMEOUT, app.db.try_writing(app.clock.now())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(reason(&error).unwrap_or("database not writable")),
        Err(_) => Err("database locked or busy"),
    }
}
