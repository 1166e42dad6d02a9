//! JSON array responses.

use crate::core::error::{Error, Result};
use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use std::vec;

/// Target size of a chunk, which the last entry may exceed. Serializing a chunk takes a fraction of
/// a millisecond.
const CHUNK_BYTES: usize = 32 * 1024;

/// Responds with the entries as a JSON array. A long array is serialized in chunks while it is
/// sent, so that it does not block a runtime thread and is not in memory twice.
#[derive(Debug)]
pub struct JsonList<T>(pub Vec<T>);

/// The entries that are not serialized yet.
struct Rest<T> {
    entries: vec::IntoIter<T>,
    has_begun: bool,
}

impl<T: Serialize> Rest<T> {
    /// Serializes the next chunk. Returns it, and whether it is the last.
    fn next_chunk(&mut self) -> Result<(Vec<u8>, bool)> {
        let mut text = vec![];
        while text.len() < CHUNK_BYTES {
            let Some(entry) = self.entries.next() else {
                text.extend_from_slice(if self.has_begun { b"]" } else { b"[]" });
                return Ok((text, true));
            };
            text.push(if self.has_begun { b',' } else { b'[' });
            self.has_begun = true;
            serde_json::to_writer(&mut text, &entry)
                .map_err(|error| Error::Internal(error.to_string().into()))?;
        }
        Ok((text, false))
    }
}

impl<T: Serialize + Send + 'static> IntoResponse for JsonList<T> {
    fn into_response(self) -> Response {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        let mut rest = Rest { entries: self.0.into_iter(), has_begun: false };
        let body = match rest.next_chunk() {
            Err(error) => return error.into_response(),
            Ok((text, true)) => Body::from(text),
            Ok((text, false)) => Body::from_stream(chunks(text, rest)),
        };
        ([(CONTENT_TYPE, JSON)], body).into_response()
    }
}

/// A stream of `first` and the chunks of `rest`. It yields to other tasks between chunks.
fn chunks<T: Serialize + Send + 'static>(
    first: Vec<u8>,
    rest: Rest<T>,
) -> impl stream::Stream<Item = Result<Bytes>> + Send {
    stream::try_unfold((Some(first), Some(rest)), async |(first, rest)| {
        if let Some(first) = first {
            return Ok(Some((Bytes::from(first), (None, rest))));
        }
        let Some(mut rest) = rest else { return Ok(None) };
        tokio::task::yield_now().await;
        let (text, is_last) = rest.next_chunk()?;
        Ok(Some((text.into(), (None, (!is_last).then_some(rest)))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_list_of_any_length_is_the_same_json() {
        for entries in [vec![], vec!["x".to_owned()], vec!["é\"".repeat(1000); 300]] {
            let expected = serde_json::to_vec(&entries).unwrap();
            let is_long = expected.len() > CHUNK_BYTES;
            let mut body = JsonList(entries).into_response().into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(first.len() < 2 * CHUNK_BYTES && (first.len() < expected.len()) == is_long);
            let rest = body.collect().await.unwrap().to_bytes();
            assert_eq!([first, rest].concat(), expected);
        }
    }
}
