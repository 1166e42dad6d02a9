//! Answers that are JSON already.

use crate::core::error::{Error, Result};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::marker::PhantomData;

/// A `T` as JSON. It may have borrowed what does not live as long as the answer.
#[derive(Debug)]
pub struct Written<T>(Vec<u8>, PhantomData<fn() -> T>);

impl<T> Written<T> {
    /// Writes `value`, which is a `T` but for lifetimes, and takes about so many `bytes`.
    pub fn new(value: &impl Serialize, bytes: usize) -> Result<Self> {
        let mut text = Vec::with_capacity(bytes);
        serde_json::to_writer(&mut text, value)
            .map_err(|error| Error::Internal(error.to_string().into()))?;
        Ok(Self(text, PhantomData))
    }
}

/// As a part of other JSON.
impl<T> Serialize for Written<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: &RawValue = serde_json::from_slice(&self.0).map_err(S::Error::custom)?;
        text.serialize(serializer)
    }
}

impl<T> IntoResponse for Written<T> {
    fn into_response(self) -> Response {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        ([(CONTENT_TYPE, JSON)], self.0).into_response()
    }
}
