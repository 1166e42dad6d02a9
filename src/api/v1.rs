//! Mounts the routes of each feature.

use super::middleware::forms;
use crate::core::config::Registration;
use crate::features::{admin, api_keys, conversations, items, users};
use crate::security::rate_limit::Throttle;
use crate::state::AppState;
use axum::middleware::from_fn;
use utoipa_axum::router::OpenApiRouter;

/// `/bootstrap` and everything below `/api/v1`.
pub fn routes(throttle: &Throttle, registration: Registration) -> OpenApiRouter<AppState> {
    let v1 = OpenApiRouter::new()
        .nest("/api-keys", api_keys::router::routes(throttle))
        .nest("/users", users::router::routes(throttle, registration))
        .nest("/users", conversations::user_routes())
        .nest("/conversations", conversations::router::routes())
        .nest("/items", items::router::routes())
        .nest("/admin", admin::router::routes())
        .nest("/audit", admin::router::audit_routes())
        .layer(from_fn(forms::refuse));
    // `/bootstrap` is outside the `forms` layer: it has its own origin check, which permits a
    // same-origin page to send the request without a body.
    api_keys::router::bootstrap_routes().nest("/api/v1", v1)
}
