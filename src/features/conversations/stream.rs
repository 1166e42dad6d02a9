//! A long list of messages as an answer that is written while it is read, so that one request
//! cannot take the server's memory.

use super::model::Message;
use super::service::messages;
use crate::core::error::Error;
use crate::db::Db;
use crate::http::Page;
use crate::security::Reach;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;

/// Messages read at once. Each has at most 100 000 characters, or 400 000 bytes.
pub(super) const BATCH: i64 = 50;

/// What is still to be written of a list.
struct Rest {
    db: Db,
    conversation_id: i64,
    reach: Reach,
    page: Page,
    batch: Vec<Message>,
    begun: bool,
}

/// Answers with the JSON array of `first`, the first batch of `page`, and then the others. When one
/// of those cannot be read, the answer breaks off, which a client notices.
pub(super) fn answer(
    db: Db,
    conversation_id: i64,
    reach: Reach,
    page: Page,
    first: Vec<Message>,
) -> Response {
    let rest = Rest { db, conversation_id, reach, page, batch: first, begun: false };
    let chunks = stream::try_unfold(Some(rest), async |rest| match rest {
        Some(rest) => rest.next().await.map(Some),
        None => Ok(None),
    });
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response()
}

impl Rest {
    /// The text of this batch, and what comes after it.
    async fn next(mut self) -> Result<(Bytes, Option<Self>), Error> {
        let mut text = vec![];
        for message in &self.batch {
            text.push(if self.begun { b',' } else { b'[' });
            self.begun = true;
            serde_json::to_writer(&mut text, message)
                .map_err(|error| Error::Internal(error.to_string().into()))?;
        }
        let read = i64::try_from(self.batch.len()).unwrap_or(BATCH);
        self.page = Page { skip: self.page.skip + read, limit: self.page.limit - read };
        if read < BATCH || self.page.limit == 0 {
            text.extend_from_slice(if self.begun { b"]" } else { b"[]" });
            return Ok((text.into(), None));
        }
        let next = Page { skip: self.page.skip, limit: self.page.limit.min(BATCH) };
        self.batch = messages::list(&self.db, self.conversation_id, self.reach, next).await?;
        Ok((text.into(), Some(self)))
    }
}
