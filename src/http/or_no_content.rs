//! An answer that may be empty.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// The response of `T`, or 204 without a body.
///
/// Writes answer with it: a key that may not read what it changed gets no more than the status.
#[derive(Debug)]
pub struct OrNoContent<T>(pub Option<T>);

impl<T: IntoResponse> IntoResponse for OrNoContent<T> {
    fn into_response(self) -> Response {
        match self.0 {
            Some(answer) => answer.into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        }
    }
}
