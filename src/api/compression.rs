//! Compression of answers. Files that never change are compressed before ([`super::docs`]); all others
//! here, fast and in small pieces, as a large answer must not hold up a thread of the runtime.

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

/// Smaller answers fit into one packet with their head: compressed, they would be no faster.
const MIN_BYTES: u64 = 1024;
/// Bytes that are compressed in one poll: at the fastest levels well under a millisecond.
const PIECE_BYTES: usize = 16 * 1024;

/// In the extensions of an answer that is not to be compressed here.
#[derive(Clone, Copy, Debug)]
pub struct Precompressed;

/// Whether an answer is to be compressed, beside its size and type.
type IsWanted = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// gzip at its fastest level, for clients that ask. Every client that knows brotli knows gzip, and one
/// encoder of brotli takes about 3.6 MB of memory until its answer is sent; docs/RELIABILITY.md has
/// what the levels cost.
pub fn layer() -> CompressionLayer<And<And<DefaultPredicate, SizeAbove>, IsWanted>> {
    let is_wanted: IsWanted = |_, _, _, extensions| extensions.get::<Precompressed>().is_none();
    let predicate = DefaultPredicate::new().and(SizeAbove::new(MIN_BYTES)).and(is_wanted);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(predicate)
}

/// Hands the layer above an answer in pieces, and lets other tasks run between them.
pub async fn in_pieces(request: Request, next: Next) -> Response {
    let may_compress = request.headers().contains_key(ACCEPT_ENCODING);
    let response = next.run(request).await;
    let is_small = response.body().size_hint().upper().is_some_and(|n| n <= PIECE_BYTES as u64);
    if !may_compress || is_small || response.extensions().get::<Precompressed>().is_some() {
        return response;
    }
    response.map(|body| Body::new(Pieces { body, rest: Bytes::new(), given: 0 }))
}

/// A body whose data comes in pieces of at most [`PIECE_BYTES`].
struct Pieces {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    /// Bytes given since the task last yielded.
    given: usize,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.given >= PIECE_BYTES {
            self.given = 0;
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
        let length = self.rest.len().min(PIECE_BYTES - self.given);
        self.given += length;
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

    fn pieces(text: &[u8]) -> Pieces {
        Pieces { body: Body::from(text.to_vec()), rest: Bytes::new(), given: 0 }
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_the_same_body() {
        let text: Vec<u8> = (0..=255).cycle().take(5 * PIECE_BYTES + 7).collect();
        let body = pieces(&text);
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
        assert_eq!(body.collect().await.unwrap().to_bytes(), text);
    }

    #[test]
    fn no_poll_gives_more_than_a_piece_without_a_pause() {
        let mut body = pieces(&vec![b'x'; 3 * PIECE_BYTES]);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else {
                panic!("no piece");
            };
            assert_eq!(frame.into_data().unwrap().len(), PIECE_BYTES);
            assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
        }
        assert!(matches!(Pin::new(&mut body).poll_frame(&mut cx), Poll::Ready(None)));
    }
}
