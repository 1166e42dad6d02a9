//! What a feature brings to the API, to `octopus verify` and to the removal of old rows.

use crate::core::config::Registration;
use crate::core::error::Result;
use crate::db::TableChecks;
use crate::security::rate_limit::Throttle;
use crate::state::AppState;
use futures_util::future::BoxFuture;
use utoipa_axum::router::OpenApiRouter;

/// A feature. Each declares one as `FEATURE` in its `feature.rs`, and the list of features has it.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// The tags of its operations, in the order of the OpenAPI document.
    pub tags: &'static [Tag],
    /// Returns its routes, with their paths below `/api/v1`.
    pub routes: fn(&RouteSettings<'_>) -> OpenApiRouter<AppState>,
    /// Returns its routes outside `/api/v1`, if it has any. They must refuse requests from forms of
    /// other sites themselves.
    pub root_routes: Option<fn() -> OpenApiRouter<AppState>>,
    /// What `octopus verify` checks in its tables.
    pub checks: TableChecks,
    /// What is removed every hour once it is no longer needed.
    pub old_rows: &'static [OldRows],
}

/// Rows that are removed some time after their last use.
#[derive(Clone, Copy, Debug)]
pub struct OldRows {
    /// The kind of row, for the log entry of a failure.
    pub what: &'static str,
    /// Removes those that are old enough. Fails with the error of the database.
    pub remove: for<'a> fn(&'a AppState) -> BoxFuture<'a, Result<()>>,
}

/// A tag of the OpenAPI document: a group of operations.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    /// The name, as in `tag = "…"` of an operation.
    pub name: &'static str,
    /// What a caller can do with the operations.
    pub description: &'static str,
}

/// What the routes of a feature may depend on when the router is built.
#[derive(Clone, Copy, Debug)]
pub struct RouteSettings<'s> {
    /// The rate limits of the server.
    pub throttle: &'s Throttle,
    /// Who may register.
    pub registration: Registration,
}
