//! Registers API keys.

use super::{repository, router, service};
use crate::features::feature::{Feature, OldRows, Tag};
use utoipa_axum::router::OpenApiRouter;

/// API keys.
pub const FEATURE: Feature = Feature {
    tags: &[
        Tag { name: "bootstrap", description: "Create the first API key of a new installation." },
        Tag {
            name: "api-keys",
            description: "Create, restrict, rotate, deactivate and verify API keys, and read their \
                          usage and the audit log. Most operations require the `admin` scope.",
        },
    ],
    routes: |settings| OpenApiRouter::new().nest("/api-keys", router::routes(settings.throttle)),
    // `/bootstrap` has its own origin check, which permits a same-origin page to send the request
    // without a body.
    root_routes: Some(router::bootstrap_routes),
    checks: repository::CHECKS,
    old_rows: &[OldRows { what: "keys", remove: |app| Box::pin(service::forget_old(app)) }],
};
