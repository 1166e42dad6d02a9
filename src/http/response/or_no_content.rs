//! A response that may be empty.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// The response of `T`, or 204 without a body.
///
/// Write operations return it: an API key without permission to read gets 204.
#[derive(Debug)]
pub struct OrNoContent<T>(pub Option<T>);

impl<T: IntoResponse> IntoResponse for OrNoContent<T> {
    fn into_response(self) -> Response {
        match self.0 {
            Some(response) => response.into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        }
    }
}
