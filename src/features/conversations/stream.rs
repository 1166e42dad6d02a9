//! A long list of messages as an answer that is written while it is read, so that one request
//! cannot take the server's memory.

use super::model::Message;
use super::service::messages;
use crate::core::error::{Error, Result};
use crate::db::Db;
use crate::security::Reach;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;

/// Messages read at once. Each has at most 100 000 characters, or 400 000 bytes.
const BATCH: usize = 50;

/// What is still to be written of a list.
struct Rest {
    db: Db,
    conversation_id: i64,
    reach: Reach,
    /// The numbers that are not read yet.
    numbers: Vec<i64>,
    batch: Vec<Message<'static>>,
    begun: bool,
}

/// Answers with the JSON array of the messages with these numbers. Fails when the first cannot be
/// read; when a later one cannot, the answer breaks off, which a client notices.
pub(super) async fn answer(
    db: Db,
    conversation_id: i64,
    reach: Reach,
    numbers: Vec<i64>,
) -> Result<Response> {
    let rest = Rest { db, conversation_id, reach, numbers, batch: vec![], begun: false };
    let rest = rest.read().await?;
    let chunks = stream::try_unfold(Some(rest), async |rest| match rest {
        Some(rest) => rest.next().await.map(Some),
        None => Ok(None),
    });
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response())
}

impl Rest {
    /// With the next batch.
    async fn read(mut self) -> Result<Self> {
        let later = self.numbers.split_off(self.numbers.len().min(BATCH));
        let numbers = std::mem::replace(&mut self.numbers, later);
        self.batch =
            messages::numbered(&self.db, self.conversation_id, self.reach, &numbers).await?;
        Ok(self)
    }

    /// The text of this batch, and what comes after it.
    async fn next(mut self) -> Result<(Bytes, Option<Self>)> {
        let mut text = vec![];
        for message in std::mem::take(&mut self.batch) {
            text.push(if self.begun { b',' } else { b'[' });
            self.begun = true;
            serde_json::to_writer(&mut text, &message)
                .map_err(|error| Error::Internal(error.to_string().into()))?;
        }
        if self.numbers.is_empty() {
            text.extend_from_slice(if self.begun { b"]" } else { b"[]" });
            return Ok((text.into(), None));
        }
        Ok((text.into(), Some(self.read().await?)))
    }
}
