//! A JSON array as an answer.

use crate::core::error::{Error, Result};
use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use std::vec;

/// Bytes that are written at once, and what the last entry has beyond them: a fraction of a
/// millisecond.
const PIECE_BYTES: usize = 32 * 1024;

/// Answers with the entries as a JSON array. A long one is written piece by piece while it is sent, so
/// that it neither holds up a thread of the runtime nor is in memory twice.
#[derive(Debug)]
pub struct JsonList<T>(pub Vec<T>);

/// What is still to be written.
struct Rest<T> {
    entries: vec::IntoIter<T>,
    has_begun: bool,
}

impl<T: Serialize> Rest<T> {
    /// The next piece, and whether it is the last.
    fn piece(&mut self) -> Result<(Vec<u8>, bool)> {
        let mut text = vec![];
        while text.len() < PIECE_BYTES {
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
        let body = match rest.piece() {
            Err(error) => return error.into_response(),
            Ok((text, true)) => Body::from(text),
            Ok((text, false)) => Body::from_stream(pieces(text, rest)),
        };
        ([(CONTENT_TYPE, JSON)], body).into_response()
    }
}

/// The pieces from `first` on. Other tasks run between them.
fn pieces<T: Serialize + Send + 'static>(
    first: Vec<u8>,
    rest: Rest<T>,
) -> impl stream::Stream<Item = Result<Bytes>> + Send {
    stream::try_unfold((Some(first), Some(rest)), async |(first, rest)| {
        if let Some(first) = first {
            return Ok(Some((Bytes::from(first), (None, rest))));
        }
        let Some(mut rest) = rest else { return Ok(None) };
        tokio::task::yield_now().await;
        let (text, is_last) = rest.piece()?;
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
            let is_long = expected.len() > PIECE_BYTES;
            let mut body = JsonList(entries).into_response().into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(first.len() < 2 * PIECE_BYTES && (first.len() < expected.len()) == is_long);
            let rest = body.collect().await.unwrap().to_bytes();
            assert_eq!([first, rest].concat(), expected);
        }
    }
}
