//! Registers items.

use super::{repository, router};
use crate::features::feature::{Feature, Tag};
use utoipa_axum::router::OpenApiRouter;

/// Items.
pub const FEATURE: Feature = Feature {
    tags: &[Tag {
        name: "items",
        description: "An example feature to copy for your own resources.",
    }],
    routes: |_| OpenApiRouter::new().nest("/items", router::routes()),
    root_routes: None,
    checks: repository::CHECKS,
    old_rows: &[],
};
