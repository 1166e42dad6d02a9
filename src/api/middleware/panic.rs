//! Turns a panic in a handler into a response.

use crate::core::error::Error;
use axum::response::{IntoResponse, Response};
use std::any::Any;

/// The response to a panic in a handler. The panic hook has logged the panic already.
pub fn response(_: Box<dyn Any + Send>) -> Response {
    Error::Internal("a handler panicked".into()).into_response()
}
