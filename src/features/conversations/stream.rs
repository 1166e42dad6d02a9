//! A long list of messages as an answer that is written while it is read, so that one request
//! cannot take the server's memory.

use super::service::messages::Parts;
use crate::core::error::{Error, Result};
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;

/// What is still to be written of a list.
struct Rest {
    parts: Parts,
    /// What is read and not sent.
    text: Vec<u8>,
}

/// Answers with the JSON array of the messages that `parts` reads. Fails when the first cannot be
/// read; when a later one cannot, the answer breaks off, which a client notices.
pub(super) async fn answer(parts: Parts) -> Result<Response> {
    let mut rest = Rest { parts, text: vec![b'['] };
    rest.read().await?;
    let chunks = stream::try_unfold(Some(rest), async |rest| match rest {
        Some(rest) => rest.next().await.map(Some),
        None => Ok(None),
    });
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response())
}

impl Rest {
    async fn read(&mut self) -> Result<()> {
        let messages = self.parts.next().await?;
        append(&mut self.text, &messages)
    }

    /// The text that was read, and what comes after it.
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

/// Appends `entries` to the JSON `text`, with commas between them.
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
