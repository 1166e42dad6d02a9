//! NDJSON request bodies, read line by line. There is no limit on the number of lines or on the
//! total time, as long as data keeps arriving.

use super::checked::{Checked, Rules};
use super::fields::Fields;
use super::json::refuse_encoding;
use super::parse::{byte_order_mark, object, parse_object};
use crate::core::config::Config;
use crate::core::error::{Error, Loc, Result};
use crate::core::offload::offload_large;
use crate::http::limits::deadline::Deadline;
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

/// Maximum line length in bytes, without the line break. The longest message has 1,000,000 bytes,
/// which take up to three times as many if the client escapes all characters that are not ASCII.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// The NDJSON body of a request. Extraction fails with 415, reading a line with 408 or 422.
#[derive(Debug)]
pub struct NdjsonBody {
    body: Body,
    /// How long the client may pause between two chunks.
    idle: Duration,
    buffer: BytesMut,
    /// Length of the buffer's start that was already searched for a line break.
    searched: usize,
    /// Lines read so far.
    number: usize,
}

/// One line: a JSON object.
#[derive(Debug)]
pub struct NdjsonLine {
    /// Line number in the body, from 1.
    pub number: usize,
    /// Size in bytes.
    bytes: usize,
    value: Arc<Value>,
}

impl<S> FromRequest<S> for NdjsonBody
where
    S: Send + Sync,
    Arc<Config>: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        if !is_ndjson(request.headers()) {
            return Err(Error::NotNdjson);
        }
        refuse_encoding(request.headers())?;
        // The connection's idle timeout is off while a handler runs, so reading enforces `idle`.
        if let Some(deadline) = request.extensions().get::<Deadline>() {
            deadline.lift();
        }
        let idle = Arc::<Config>::from_ref(state).limits.idle_timeout;
        Ok(Self::new(request.into_body(), idle))
    }
}

/// A missing `Content-Type` counts as NDJSON.
fn is_ndjson(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-ndjson")
}

impl NdjsonBody {
    fn new(body: Body, idle: Duration) -> Self {
        Self { body, idle, buffer: BytesMut::new(), searched: 0, number: 0 }
    }

    /// Reads the next line that is not blank; `None` at the end of the body.
    pub async fn next(&mut self) -> Result<Option<NdjsonLine>> {
        while let Some(text) = self.next_text().await? {
            self.number += 1;
            let number = self.number;
            if text.len() > MAX_LINE_BYTES {
                return Err(too_long(number));
            }
            let mark = if number == 1 { byte_order_mark(&text) } else { 0 };
            let text = text.slice(mark..);
            if text.trim_ascii().is_empty() {
                continue;
            }
            let bytes = text.len();
            let value = offload_large(bytes, move || parse(&text)).await;
            let value = value.map_err(|error| in_line(number, error))?;
            return Ok(Some(NdjsonLine { number, bytes, value: Arc::new(value) }));
        }
        Ok(None)
    }

    /// Reads the bytes of the next line, without the line break.
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
            if self.searched > MAX_LINE_BYTES {
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

    /// Reads the next chunk of the body; `None` at its end.
    async fn more(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.body.frame()).await;
            match frame.map_err(|_| Error::BodyTooSlow)? {
                None => return Ok(None),
                // Trailers are not part of the content.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                // The client disconnected or broke the framing.
                Some(Err(_)) => {
                    return Err(Error::Refused("The request body could not be read".into()));
                }
            }
        }
    }
}

impl NdjsonLine {
    /// The string in field `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value.get(name)?.as_str()
    }

    /// Validates the line as a `T` at the time `now`. Fails with 422.
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
            valid.ok_or_else(|| Error::Internal("an invalid line without a problem".into()))
        })
        .await
    }

    /// A 422 error for `field` of this line.
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

/// Parses a line as a JSON object.
fn parse(text: &[u8]) -> Result<Value> {
    let mut fields = Fields::new("body");
    let value = object(text, &mut fields);
    fields.finish()?;
    value.ok_or_else(|| Error::Internal("an unparsable line without a problem".into()))
}

fn too_long(number: usize) -> Error {
    let mut fields = Fields::new("body");
    let msg = format!("Value error, a line has at most {MAX_LINE_BYTES} bytes");
    fields.add_at(vec![Loc::Index(number)], "value_error", msg, Value::Null);
    fields.finish().err().unwrap_or(Error::BodyTooLarge(MAX_LINE_BYTES))
}

/// Adds the line number to the location of each problem.
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

    /// Reads the lines of a body that arrives in `pieces`; fails with the location of the problem.
    async fn read(pieces: &[&[u8]]) -> Result<Vec<(usize, String)>, Vec<Loc>> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, Error>(piece.to_vec())).collect();
        let mut lines = NdjsonBody::new(Body::from_stream(stream::iter(pieces)), Duration::MAX);
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
    async fn lines_have_any_line_break_and_arrive_in_any_chunks() {
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
    async fn a_line_that_is_not_an_object_is_refused_with_its_number() {
        let at = |number| Err(vec![Loc::Name("body".into()), Loc::Index(number)]);
        for bad in ["{", "1", "[]", "null", "{}{}", "\"x\"", "{\"a\":\"\\ud800\"}"] {
            let text = format!("{{}}\n\n{bad}\n{{}}");
            assert_eq!(read(&[text.as_bytes()]).await, at(3), "{bad}");
        }
        assert_eq!(read(&[b"{\"a\":\"\xff\"}"]).await, at(1));
    }

    #[tokio::test]
    async fn a_line_has_at_most_four_mebibytes_with_any_line_break() {
        let longest = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_LINE_BYTES - 8));
        assert_eq!(longest.len(), MAX_LINE_BYTES);
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
        fn the_lines_depend_on_the_bytes_and_not_on_the_chunks(
            fragments in prop::collection::vec(select(vec![
                "{", "}", "{}", "\n", "\r\n", "{\"a\":1}", "\"", "\\", " ", "é", "\u{feff}", "[]", "null",
            ]), 0..30),
            sizes in prop::collection::vec(1..9usize, 1..5),
        ) {
            let text = fragments.concat();
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
            let unmarked = text.strip_prefix('\u{feff}').unwrap_or(&text);
            for (index, line) in unmarked.split('\n').enumerate().filter(|(_, l)| !l.trim_ascii().is_empty()) {
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
