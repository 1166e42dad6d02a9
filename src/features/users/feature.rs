//! Registers users.

use super::{repository, retention, router};
use crate::features::feature::{Feature, OldRows, Tag};
use utoipa_axum::router::OpenApiRouter;

/// Users.
pub const FEATURE: Feature = Feature {
    tags: &[Tag {
        name: "users",
        description: "Register users, sign them in, and manage their accounts, sessions and \
                      passwords.",
    }],
    routes: |settings| {
        let users = router::routes(settings.throttle, settings.registration);
        OpenApiRouter::new().nest("/users", users)
    },
    root_routes: None,
    checks: repository::CHECKS,
    old_rows: &[OldRows { what: "users", remove: |app| Box::pin(retention::forget_old(app)) }],
};
