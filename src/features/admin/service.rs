//! Installation statistics and audit log verification.

use super::repository;
use crate::audit::{self, Anchor, KeyDifference, Verification};
use crate::core::error::{Error, Result};
use crate::http::{FromQuery, QueryPairs};
use crate::state::AppState;
use serde::Serialize;
use std::fmt::Display;
use std::path::PathBuf;
use tokio::task::spawn_blocking;
use utoipa::{IntoParams, ToSchema};

/// Installation statistics.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    counts: Counts,
    database: DatabaseStats,
    /// Version of Octopus.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Seconds since this process started.
    #[schema(example = 86_400)]
    uptime_seconds: i64,
}

/// Number of records of each kind.
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

/// Database kind, version and size.
#[derive(Debug, Serialize, ToSchema)]
struct DatabaseStats {
    /// `sqlite` or `postgres`.
    #[schema(example = "sqlite")]
    kind: &'static str,
    /// Version as reported by the database.
    version: String,
    /// Size in bytes, including indexes.
    size_bytes: i64,
}

/// Anchor to compare the audit chain with.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AnchorFilter {
    /// The head of the chain at an earlier time, as `SEQ:HASH`. Default: the newest anchor in
    /// `AUDIT_ANCHOR_FILE`, if that is set.
    #[param(value_type = Option<String>, pattern = "^[0-9]+:[0-9a-fA-F]{64}$")]
    anchor: Option<Anchor>,
}

impl FromQuery for AnchorFilter {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { anchor: query.parsed("anchor", Anchor::MAX_CHARACTERS) }
    }
}

/// Verifies the audit chain and compares API keys with the audit log. Logs each problem.
pub async fn verify_audit_trail(app: &AppState, filter: &AnchorFilter) -> Result<Verification> {
    let anchor = match (&filter.anchor, app.config.audit.anchor_file.clone()) {
        (None, Some(file)) => newest_anchor(file).await?,
        (anchor, _) => anchor.clone(),
    };
    let found = app.audit.verify(&app.db, anchor.as_ref()).await?;
    if let Some(fault) = &found.first_bad {
        let (seq, problem) = (fault.seq, fault.problem);
        tracing::error!(event = "audit.broken", seq, problem, "the audit chain is broken");
    }
    for KeyDifference { api_key_id, field, seq, .. } in &found.key_differences {
        tracing::error!(
            event = "audit.key_mismatch",
            api_key_id,
            field,
            seq,
            "an API key differs from the audit log"
        );
    }
    Ok(found)
}

/// The newest anchor in `AUDIT_ANCHOR_FILE`. Fails if the file cannot be read, rather than skip the
/// comparison.
async fn newest_anchor(file: PathBuf) -> Result<Option<Anchor>> {
    let read = spawn_blocking(move || audit::newest_anchor(&file)).await;
    let unreadable = |error: &dyn Display| {
        Error::Internal(format!("cannot read AUDIT_ANCHOR_FILE: {error}").into())
    };
    read.map_err(|error| unreadable(&error))?.map_err(|error| unreadable(&error))
}

/// Collects installation statistics.
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
