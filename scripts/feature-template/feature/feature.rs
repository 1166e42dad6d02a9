//! Registers @the things@.

use super::{repository, router};
use crate::features::feature::{Feature, Tag};
use utoipa_axum::router::OpenApiRouter;

/// @The things@.
pub const FEATURE: Feature = Feature {
    tags: &[Tag {
        name: "@the-things@",
        description: "Create, read, change and delete @the things@.",
    }],
    routes: |_| OpenApiRouter::new().nest("/@the-things@", router::routes()),
    root_routes: None,
    checks: repository::CHECKS,
    old_rows: &[],
};
