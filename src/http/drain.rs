//! Reads and throws away what a refused request still sends, so that an ordinary client gets the
//! answer and not a broken pipe.

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Most bytes thrown away for one request: twice what the largest bodies may have.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Longest time spent on it.
const MAX_TIME: Duration = Duration::from_secs(5);

/// What is left of a body that was dropped before its end.
#[derive(Clone, Default)]
pub struct Remainder(Arc<Mutex<Option<Body>>>);

/// A body that is kept, not lost, when its reader drops it early.
struct Salvage {
    inner: Body,
    remainder: Remainder,
}

/// Wraps `body`, so that what nobody reads of it can be thrown away.
pub fn salvage(body: Body) -> (Body, Remainder) {
    let remainder = Remainder::default();
    (Body::new(Salvage { inner: body, remainder: remainder.clone() }), remainder)
}

impl Remainder {
    /// Throws it away. Whether its end was reached.
    pub async fn throw_away(self) -> bool {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
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

impl Drop for Salvage {
    fn drop(&mut self) {
        if !self.inner.is_end_stream() {
            let body = std::mem::take(&mut self.inner);
            *self.remainder.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl HttpBody for Salvage {
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
