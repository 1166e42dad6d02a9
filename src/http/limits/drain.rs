//! Reads and discards the rest of a refused request's body. Without this, a client that is still
//! sending gets a broken pipe instead of the response.

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Maximum bytes to discard for one request: twice the largest body limit.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Maximum time to spend on discarding.
const MAX_TIME: Duration = Duration::from_secs(5);

/// The unread rest of a body that was dropped before its end.
#[derive(Clone, Default)]
pub struct UnreadBody(Arc<Mutex<Option<Body>>>);

/// A body that saves its unread rest when its reader drops it early.
struct TrackedBody {
    inner: Body,
    unread: UnreadBody,
}

/// Wraps `body` so that its unread rest can be discarded later.
pub fn track_unread(body: Body) -> (Body, UnreadBody) {
    let unread = UnreadBody::default();
    (Body::new(TrackedBody { inner: body, unread: unread.clone() }), unread)
}

impl UnreadBody {
    /// Reads and discards the rest. Returns whether the end of the body was reached.
    pub async fn discard(self) -> bool {
        let left = self.0.lock().take();
        match left {
            Some(body) => read_to_end(body).await,
            None => true,
        }
    }
}

async fn read_to_end(mut body: Body) -> bool {
    let reading = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > MAX_BYTES {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(MAX_TIME, reading).await.unwrap_or(false)
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        if !self.inner.is_end_stream() {
            let body = std::mem::take(&mut self.inner);
            *self.unread.0.lock() = Some(body);
        }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
