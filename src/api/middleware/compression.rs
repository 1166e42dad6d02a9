//! Compression of responses. Static files are compressed in advance (`api/docs.rs`). All other
//! responses are compressed here, at the fastest level and in small chunks, so that a large
//! response does not block a thread of the runtime.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::ACCEPT_ENCODING;
use axum::http::{Extensions, HeaderMap, StatusCode, Version};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_http::CompressionLevel;
use tower_http::compression::predicate::{And, DefaultPredicate, SizeAbove};
use tower_http::compression::{CompressionLayer, Predicate};

/// Minimum size of a compressed response. A smaller one fits into one packet with its head, so
/// compression would not make it faster.
const MIN_BYTES: u64 = 1024;
/// Bytes compressed per poll: well under a millisecond at the fastest level.
const CHUNK_BYTES: usize = 16 * 1024;

/// Extension of a response that must not be compressed here.
#[derive(Clone, Copy, Debug)]
pub struct Precompressed;

/// A predicate on whether to compress a response.
type Filter = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// Compresses responses with gzip at its fastest level, for clients that accept it. Brotli is not
/// offered: every client that supports it supports gzip, and a brotli encoder holds about 3.6 MB of
/// memory until its response is sent. docs/RELIABILITY.md lists the cost of each level.
pub fn layer() -> CompressionLayer<And<And<DefaultPredicate, SizeAbove>, Filter>> {
    let is_compressible: Filter = |_, _, _, extensions| extensions.get::<Precompressed>().is_none();
    let predicate = DefaultPredicate::new().and(SizeAbove::new(MIN_BYTES)).and(is_compressible);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(predicate)
}

/// Splits a response body into chunks for the compression layer, and yields to other tasks between
/// them.
pub async fn in_pieces(request: Request, next: Next) -> Response {
    let may_compress = request.headers().contains_key(ACCEPT_ENCODING);
    let response = next.run(request).await;
    let is_small = response.body().size_hint().upper().is_some_and(|n| n <= CHUNK_BYTES as u64);
    if !may_compress || is_small || response.extensions().get::<Precompressed>().is_some() {
        return response;
    }
    response.map(|body| Body::new(ChunkedBody { body, rest: Bytes::new(), returned: 0 }))
}

/// A body whose data frames have at most [`CHUNK_BYTES`] bytes.
struct ChunkedBody {
    body: Body,
    /// The rest of the last frame.
    rest: Bytes,
    /// Bytes returned since the task last yielded.
    returned: usize,
}

impl HttpBody for ChunkedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.returned >= CHUNK_BYTES {
            self.returned = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(CHUNK_BYTES - self.returned);
        self.returned += length;
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::task::Waker;

    fn chunked(text: &[u8]) -> ChunkedBody {
        ChunkedBody { body: Body::from(text.to_vec()), rest: Bytes::new(), returned: 0 }
    }

    #[tokio::test]
    async fn a_chunked_body_has_the_same_content() {
        let text: Vec<u8> = (0..=255).cycle().take(5 * CHUNK_BYTES + 7).collect();
        let body = chunked(&text);
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
        assert_eq!(body.collect().await.unwrap().to_bytes(), text);
    }

    #[test]
    fn a_poll_returns_at_most_one_chunk_before_the_task_yields() {
        let mut body = chunked(&vec![b'x'; 3 * CHUNK_BYTES]);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else {
                panic!("no chunk");
            };
            assert_eq!(frame.into_data().unwrap().len(), CHUNK_BYTES);
            assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
        }
        assert!(matches!(Pin::new(&mut body).poll_frame(&mut cx), Poll::Ready(None)));
    }
}
