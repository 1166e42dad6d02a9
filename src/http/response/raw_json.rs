//! Responses that are already serialized as JSON.

use crate::core::error::{Error, Result};
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::marker::PhantomData;

/// A `T` as JSON text. The value may have borrowed data that does not live as long as the response.
#[derive(Debug)]
pub struct RawJson<T>(Text, PhantomData<fn() -> T>);

#[derive(Debug)]
enum Text {
    Whole(Vec<u8>),
    Streamed(Body),
}

impl<T> RawJson<T> {
    /// Serializes `value`, which is a `T` except for lifetimes. `bytes` is the expected size.
    pub fn new(value: &impl Serialize, bytes: usize) -> Result<Self> {
        let mut text = Vec::with_capacity(bytes);
        serde_json::to_writer(&mut text, value)
            .map_err(|error| Error::Internal(error.to_string().into()))?;
        Ok(Self(Text::Whole(text), PhantomData))
    }

    /// A `T` that is serialized while it is sent.
    pub fn streamed(body: Body) -> Self {
        Self(Text::Streamed(body), PhantomData)
    }
}

/// For embedding in other JSON. Fails for a streamed value.
impl<T> Serialize for RawJson<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Text::Whole(text) = &self.0 else {
            return Err(S::Error::custom("a streamed response cannot be embedded in another"));
        };
        let text: &RawValue = serde_json::from_slice(text).map_err(S::Error::custom)?;
        text.serialize(serializer)
    }
}

impl<T> IntoResponse for RawJson<T> {
    fn into_response(self) -> Response {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        let body = match self.0 {
            Text::Whole(text) => text.into(),
            Text::Streamed(body) => body,
        };
        ([(CONTENT_TYPE, JSON)], body).into_response()
    }
}
