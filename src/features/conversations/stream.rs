//! Streams a long list of messages as a response body, which bounds the memory of one request.

use super::service::parts::Parts;
use crate::core::error::{Error, Result};
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;

/// The state of a streamed list.
struct MessageStream {
    parts: Parts,
    /// JSON that is not sent yet.
    text: Vec<u8>,
}

/// Responds with the messages of `parts` as a JSON array. Fails if the first part cannot be read.
/// If a later one cannot, the connection is closed early and the client sees an incomplete body.
pub(super) async fn answer(parts: Parts) -> Result<Response> {
    let mut messages = MessageStream { parts, text: vec![b'['] };
    messages.read().await?;
    let chunks = stream::try_unfold(Some(messages), async |messages| match messages {
        Some(messages) => messages.next().await.map(Some),
        None => Ok(None),
    });
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response())
}

impl MessageStream {
    async fn read(&mut self) -> Result<()> {
        let messages = self.parts.next().await?;
        append(&mut self.text, &messages)
    }

    /// The next chunk, and the state after it; `None` after the last chunk.
    async fn next(mut self) -> Result<(Bytes, Option<Self>)> {
        if self.text.is_empty() {
            self.text.push(b',');
            self.read().await?;
        }
        if self.parts.is_empty() {
            self.text.push(b']');
            return Ok((self.text.into(), None));
        }
        let text = std::mem::take(&mut self.text);
        Ok((text.into(), Some(self)))
    }
}

/// Appends `entries` to the JSON `text`, separated by commas.
pub(super) fn append<T: Serialize>(text: &mut Vec<u8>, entries: &[T]) -> Result<()> {
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut *text, entry)
            .map_err(|error| Error::Internal(error.to_string().into()))?;
    }
    Ok(())
}
