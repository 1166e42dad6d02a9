//! Registers administration.

use super::router;
use crate::db::TableChecks;
use crate::features::feature::{Feature, Tag};
use utoipa_axum::router::OpenApiRouter;

/// Administration.
pub const FEATURE: Feature = Feature {
    tags: &[Tag {
        name: "admin",
        description: "Get statistics of the installation, and verify and export the audit log.",
    }],
    routes: |_| {
        OpenApiRouter::new().nest("/admin", router::routes()).nest("/audit", router::audit_routes())
    },
    root_routes: None,
    checks: TableChecks::NONE,
    old_rows: &[],
};
