//! Installation statistics and audit log verification.

use super::model::{AnchorFilter, DatabaseStats, Stats};
use super::repository;
use crate::audit::{self, Anchor, KeyDifference, Verification};
use crate::core::error::{Error, Result};
use crate::state::AppState;
use std::fmt::Display;
use std::path::PathBuf;
use tokio::task::spawn_blocking;

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
