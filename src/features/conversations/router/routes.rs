//! All routes below `/conversations`.

use super::{conversations, messages, participants};
use crate::features::conversations::{events, search, transfer};
use crate::state::AppState;
use utoipa_axum::router::OpenApiRouter;

/// The routes below `/conversations`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(conversations::routes())
        .merge(messages::routes())
        .merge(participants::routes())
        .merge(search::router::routes())
        .merge(events::routes())
        .merge(transfer::routes())
}
