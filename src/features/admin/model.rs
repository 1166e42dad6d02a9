//! Administration models: response bodies and filters.

use crate::audit::Anchor;
use crate::http::{FromQuery, QueryPairs};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

/// Installation statistics.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    pub(super) counts: Counts,
    pub(super) database: DatabaseStats,
    /// Version of Octopus.
    #[schema(example = "0.1.0")]
    pub(super) version: &'static str,
    /// Seconds since this process started.
    #[schema(example = 86_400)]
    pub(super) uptime_seconds: i64,
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
pub struct DatabaseStats {
    /// `sqlite` or `postgres`.
    #[schema(example = "sqlite")]
    pub(super) kind: &'static str,
    /// Version as reported by the database.
    pub(super) version: String,
    /// Size in bytes, including indexes.
    pub(super) size_bytes: i64,
}

/// Anchor to compare the audit chain with.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AnchorFilter {
    /// The head of the chain at an earlier time, as `SEQ:HASH`. Default: the newest anchor in
    /// `AUDIT_ANCHOR_FILE`, if that is set.
    #[param(value_type = Option<String>, pattern = "^[0-9]+:[0-9a-fA-F]{64}$")]
    pub(super) anchor: Option<Anchor>,
}

impl FromQuery for AnchorFilter {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { anchor: query.parsed("anchor", Anchor::MAX_CHARACTERS) }
    }
}
