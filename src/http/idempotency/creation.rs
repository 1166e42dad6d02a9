//! The response to a request that creates a resource, or replays its creation.

use crate::core::error::Result;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

const REPLAYED: &str = "idempotency-replayed";

/// A resource, and whether this request created it.
#[derive(Debug)]
pub enum Creation<T> {
    /// Created by this request.
    Created(T),
    /// Created by an earlier execution; in its current state.
    Replayed(T),
}

impl<T> Creation<T> {
    /// Applies `f` to the resource.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Creation<U> {
        match self {
            Self::Created(resource) => Creation::Created(f(resource)),
            Self::Replayed(resource) => Creation::Replayed(f(resource)),
        }
    }

    /// Applies the fallible `then` to the resource.
    pub async fn and_then<U>(self, then: impl AsyncFnOnce(T) -> Result<U>) -> Result<Creation<U>> {
        Ok(match self {
            Self::Created(resource) => Creation::Created(then(resource).await?),
            Self::Replayed(resource) => Creation::Replayed(then(resource).await?),
        })
    }
}

/// 201 with the resource, and `Idempotency-Replayed: true` if an earlier request created it.
impl<T: IntoResponse> IntoResponse for Creation<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Created(resource) => (StatusCode::CREATED, resource).into_response(),
            Self::Replayed(resource) => {
                (StatusCode::CREATED, [(REPLAYED, "true")], resource).into_response()
            }
        }
    }
}
