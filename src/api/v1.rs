//! Mounts the routes of each feature.

use super::middleware::forms;
use crate::core::config::Registration;
use crate::features;
use crate::features::feature::{RouteSettings, Tag};
use crate::security::rate_limit::Throttle;
use crate::state::AppState;
use axum::middleware::from_fn;
use utoipa_axum::router::OpenApiRouter;

/// Everything below `/api/v1`, and the routes of features outside it, such as `/bootstrap`.
pub fn routes(throttle: &Throttle, registration: Registration) -> OpenApiRouter<AppState> {
    let settings = RouteSettings { throttle, registration };
    let (mut root, mut v1) = (OpenApiRouter::new(), OpenApiRouter::new());
    for feature in features::ALL {
        v1 = v1.merge((feature.routes)(&settings));
        if let Some(routes) = feature.root_routes {
            root = root.merge(routes());
        }
    }
    // Only below `/api/v1`: each route outside it has its own check of the origin.
    root.nest("/api/v1", v1.layer(from_fn(forms::refuse)))
}

/// The tags of each feature's operations, in the order of the OpenAPI document.
pub fn tags() -> impl Iterator<Item = &'static Tag> {
    features::ALL.iter().flat_map(|feature| feature.tags)
}
