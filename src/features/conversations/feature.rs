//! Registers conversations.

use super::{events, repository, router, transfer};
use crate::features::feature::{Feature, OldRows, Tag};
use utoipa_axum::router::OpenApiRouter;

/// Conversations, with their participants and messages.
pub const FEATURE: Feature = Feature {
    tags: &[Tag {
        name: "conversations",
        description: "Create conversations, manage their participants and messages, search them, \
                      subscribe to their events, and export or import them. A signed-in user has \
                      access to the conversations they participate in, an API key to all.",
    }],
    routes: |_| {
        OpenApiRouter::new()
            .nest("/users", transfer::user_routes())
            .nest("/conversations", router::routes())
    },
    root_routes: None,
    checks: repository::CHECKS,
    old_rows: &[OldRows { what: "events", remove: |app| Box::pin(events::forget_old(app)) }],
};
