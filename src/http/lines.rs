//! Bodies of many lines, each a JSON object, read one by one: as long as lines arrive, there is no
//! limit to how many, nor to how long it takes.

use super::body::{object, parse_object};
use super::{Checked, Deadline, Fields, Rules};
use crate::core::config::Config;
use crate::core::error::{Error, Loc, Result};
use crate::core::offload::offload_large;
use axum::body::{Body, Bytes};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::BytesMut;
use chrono::{DateTime, Utc};
use http_body_util::BodyExt;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Longest line in bytes, without its end.
const MAX_LINE: usize = 1024 * 1024;

/// The body of a request as lines. Fails with 415, and later with 408 or 422.
#[derive(Debug)]
pub struct Lines {
    body: Body,
    /// How long the client may send nothing.
    idle: Duration,
    buffer: BytesMut,
    /// Bytes of the buffer that have no end of a line in them.
    searched: usize,
    /// Lines read so far.
    number: usize,
}

/// One line: a JSON object.
#[derive(Debug)]
pub struct Line {
    /// Its place in the body, from 1.
    pub number: usize,
    /// Its size.
    bytes: usize,
    value: Arc<Value>,
}

impl<S> FromRequest<S> for Lines
where
    S: Send + Sync,
    Arc<Config>: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        if !is_ndjson(request.headers()) {
            return Err(Error::NotLines);
        }
        // The connection is not watched while a handler is at work: whoever reads sets the limit.
        if let Some(deadline) = request.extensions().get::<Deadline>() {
            deadline.lift();
        }
        let idle = Arc::<Config>::from_ref(state).limits.idle_timeout;
        Ok(Self::new(request.into_body(), idle))
    }
}

/// No `Content-Type` counts as NDJSON.
fn is_ndjson(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-ndjson")
}

impl Lines {
    fn new(body: Body, idle: Duration) -> Self {
        Self { body, idle, buffer: BytesMut::new(), searched: 0, number: 0 }
    }

    /// The next line that is not blank; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Line>> {
        while let Some(text) = self.next_text().await? {
            self.number += 1;
            let number = self.number;
            if text.len() > MAX_LINE {
                return Err(too_long(number));
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let bytes = text.len();
            let value = offload_large(bytes, move || parse(&text)).await;
            let value = value.map_err(|error| in_line(number, error))?;
            return Ok(Some(Line { number, bytes, value: Arc::new(value) }));
        }
        Ok(None)
    }

    /// The bytes of the next line, without its end.
    async fn next_text(&mut self) -> Result<Option<Bytes>> {
        loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let mut text = self.buffer.split_to(self.searched + end + 1);
                text.truncate(text.len() - 1);
                self.searched = 0;
                return Ok(Some(text.freeze()));
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE {
                return Err(too_long(self.number + 1));
            }
            let Some(more) = self.more().await? else {
                self.searched = 0;
                let text = std::mem::take(&mut self.buffer).freeze();
                return Ok((!text.is_empty()).then_some(text));
            };
            self.buffer.extend_from_slice(&more);
        }
    }

    /// What arrives next; `None` at the end.
    async fn more(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.body.frame()).await;
            match frame.map_err(|_| Error::BodyTooSlow)? {
                None => return Ok(None),
                // Trailers are no part of the text.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                // The client went away or broke the framing.
                Some(Err(_)) => {
                    return Err(Error::Refused("The request body could not be read".into()));
                }
            }
        }
    }
}

impl Line {
    /// The text of its field `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value.get(name)?.as_str()
    }

    /// The value in it, if it keeps every rule at the time `now`. Fails with 422.
    pub async fn check<T: Checked>(
        &self,
        now: DateTime<Utc>,
        config: &Arc<Config>,
    ) -> Result<T::Valid> {
        let (number, value, config) = (self.number, self.value.clone(), config.clone());
        offload_large(self.bytes, move || {
            let mut fields = Fields::new("body");
            let rules = Rules { now, config: &config };
            let valid = parse_object::<T>(&value, &mut fields, &rules);
            fields.finish().map_err(|error| in_line(number, error))?;
            valid.ok_or_else(|| Error::Internal("a line failed without saying why".into()))
        })
        .await
    }

    /// The refusal of the request for `field` of this line.
    pub fn refusal(
        &self,
        field: &'static str,
        kind: &'static str,
        msg: impl Into<String>,
    ) -> Error {
        let input = self.value.get(field).cloned().unwrap_or_default();
        in_line(self.number, Fields::refusal("body", field, kind, msg, input))
    }
}

/// The JSON object in a line.
fn parse(text: &[u8]) -> Result<Value> {
    let mut fields = Fields::new("body");
    let value = object(text, &mut fields);
    fields.finish()?;
    value.ok_or_else(|| Error::Internal("a line without a reason".into()))
}

fn too_long(number: usize) -> Error {
    let mut fields = Fields::new("body");
    let msg = format!("Value error, a line has at most {MAX_LINE} bytes");
    fields.add_at(vec![Loc::Index(number)], "value_error", msg, Value::Null);
    fields.finish().err().unwrap_or(Error::BodyTooLarge(MAX_LINE))
}

/// Says of which line the problems are.
fn in_line(number: usize, error: Error) -> Error {
    let Error::Invalid(mut problems) = error else { return error };
    for problem in &mut problems {
        problem.loc.insert(1, Loc::Index(number));
    }
    Error::Invalid(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use proptest::prelude::*;
    use proptest::sample::select;

    /// The lines of a body that arrives in these pieces, or the loc of what is wrong.
    async fn read(pieces: &[&[u8]]) -> Result<Vec<(usize, String)>, Vec<Loc>> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, Error>(piece.to_vec())).collect();
        let mut lines = Lines::new(Body::from_stream(stream::iter(pieces)), Duration::MAX);
        let mut read = vec![];
        loop {
            match lines.next().await {
                Ok(Some(line)) => read.push((line.number, line.value.to_string())),
                Ok(None) => return Ok(read),
                Err(Error::Invalid(problems)) => return Err(problems[0].loc.clone()),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn lines_end_anyhow_and_arrive_in_any_pieces() {
        let text = b"{}\r\n\n  \r\n{\"a\":\"\xc3\xa9\"}\n\n{\"b\":1}";
        let expected = vec![
            (1, "{}".to_owned()),
            (4, r#"{"a":"é"}"#.to_owned()),
            (6, r#"{"b":1}"#.to_owned()),
        ];
        for size in 1..=text.len() {
            let pieces: Vec<_> = text.chunks(size).collect();
            assert_eq!(read(&pieces).await, Ok(expected.clone()), "pieces of {size}");
        }
        assert_eq!(read(&[]).await, Ok(vec![]));
        assert_eq!(read(&[b"\n", b""]).await, Ok(vec![]));
    }

    #[tokio::test]
    async fn a_line_that_is_no_object_is_named() {
        let at = |number| Err(vec![Loc::Name("body".into()), Loc::Index(number)]);
        for bad in ["{", "1", "[]", "null", "{}{}", "\"x\"", "{\"a\":\"\\ud800\"}"] {
            let text = format!("{{}}\n\n{bad}\n{{}}");
            assert_eq!(read(&[text.as_bytes()]).await, at(3), "{bad}");
        }
        assert_eq!(read(&[b"{\"a\":\"\xff\"}"]).await, at(1));
    }

    #[tokio::test]
    async fn a_line_has_at_most_a_mebibyte_however_it_ends() {
        let longest = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_LINE - 8));
        assert_eq!(longest.len(), MAX_LINE);
        let at = |number| Err(vec![Loc::Name("body".into()), Loc::Index(number)]);
        for end in ["", "\n", "\n{}"] {
            let text = format!("{{}}\n{longest}{end}");
            assert!(read(&[text.as_bytes()]).await.is_ok(), "{end:?}");
            let text = format!("{{}}\n {longest}{end}");
            for size in [1000, 1 << 20, 1 << 30] {
                let pieces: Vec<_> = text.as_bytes().chunks(size).collect();
                assert_eq!(read(&pieces).await, at(2), "{end:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_read_depends_on_the_bytes_and_not_on_how_they_arrive(
            scraps in prop::collection::vec(select(vec![
                "{", "}", "{}", "\n", "\r\n", "{\"a\":1}", "\"", "\\", " ", "é", "\u{feff}", "[]", "null",
            ]), 0..30),
            sizes in prop::collection::vec(1..9usize, 1..5),
        ) {
            let text = scraps.concat();
            let (mut rest, mut pieces) = (text.as_bytes(), vec![]);
            for size in sizes.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*size));
                pieces.push(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let found = runtime.unwrap().block_on(read(&pieces));
            let (mut expected, mut refused) = (vec![], None);
            for (index, line) in text.split('\n').enumerate().filter(|(_, l)| !l.trim_ascii().is_empty()) {
                match serde_json::from_str::<Value>(line) {
                    Ok(value) if value.is_object() => {
                        expected.push((index + 1, value.to_string()));
                    }
                    _ => {
                        refused = Some(vec![Loc::Name("body".into()), Loc::Index(index + 1)]);
                        break;
                    }
                }
            }
            prop_assert_eq!(found, refused.map_or(Ok(expected), Err));
        }
    }
}
