//! The numbers of an installation.

use super::repository;
use crate::core::error::Result;
use crate::state::AppState;
use serde::Serialize;
use utoipa::ToSchema;

/// The installation at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    counts: Counts,
    database: DatabaseStats,
    /// The version of Octopus.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Whole seconds since this process started.
    #[schema(example = 86_400)]
    uptime_seconds: i64,
}

/// Rows of each kind.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Counts {
    api_keys: i64,
    active_api_keys: i64,
    users: i64,
    conversations: i64,
    messages: i64,
    items: i64,
    audit_logs: i64,
}

/// The database.
#[derive(Debug, Serialize, ToSchema)]
struct DatabaseStats {
    /// `sqlite` or `postgres`.
    #[schema(example = "sqlite")]
    kind: &'static str,
    /// What it calls its version.
    version: String,
    /// Its size with indexes.
    size_bytes: i64,
}

/// Counts everything there is.
pub async fn stats(app: &AppState) -> Result<Stats> {
    Ok(Stats {
        counts: repository::counts(&app.db).await?,
        database: DatabaseStats {
            kind: app.db.kind(),
            version: app.db.version().await?,
            size_bytes: app.db.size_bytes().await?,
        },
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: (app.clock.now() - app.started.0).num_seconds(),
    })
}
