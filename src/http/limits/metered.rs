//! Bodies whose memory is charged to an [`Account`]: request bodies while the request is processed,
//! response bodies until the connection has sent them.

use super::budget::{Account, Charge};
use crate::core::error::{Error, Result};
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// Bodies up to this many bytes are free: a connection needs about as much memory anyway.
const UNCHARGED_BYTES: usize = 64 * 1024;
/// Chunks of a streamed response up to this many bytes are free.
const UNCHARGED_CHUNK_BYTES: usize = 16 * 1024;
/// Bytes of memory per byte of a JSON body: the body is collected, parsed, bound to a statement and
/// often part of the response.
const MEMORY_FACTOR: usize = 4;
/// How often a streamed response that waits for room in the budget checks again.
const ROOM_CHECK_INTERVAL: Duration = Duration::from_millis(100);
const FULL: &str = "Too many large requests and responses are in progress; read the open \
                    responses, then try again";

/// Charges a request's body to an account. Clones share state.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Mutex<Metered>>);

#[derive(Debug)]
struct Metered {
    account: Account,
    charge: Option<Charge>,
    bytes: usize,
    is_refused: bool,
}

impl Meter {
    /// Charges `account` for the body of `request` as it is read; no meter for a small body.
    pub fn on(request: Request, account: &Account) -> (Request, Option<Self>) {
        if is_small(request.headers(), request.body()) {
            return (request, None);
        }
        let metered =
            Metered { account: account.clone(), charge: None, bytes: 0, is_refused: false };
        let meter = Self(Arc::new(Mutex::new(metered)));
        let (parts, inner) = request.into_parts();
        let body = Body::new(MeteredBody { inner, meter: meter.clone() });
        (Request::from_parts(parts, body), Some(meter))
    }

    /// Charges `bytes` more. Returns whether there was room.
    fn add(&self, bytes: usize) -> bool {
        let mut metered = self.0.lock();
        let metered = &mut *metered;
        metered.bytes = metered.bytes.saturating_add(bytes);
        let wanted = metered.bytes.saturating_mul(MEMORY_FACTOR);
        let has_room = match &mut metered.charge {
            _ if metered.bytes <= UNCHARGED_BYTES => true,
            Some(charge) => charge.grow_to(wanted),
            None => {
                metered.charge = metered.account.take(wanted);
                metered.charge.is_some()
            }
        };
        metered.is_refused |= !has_room;
        has_room
    }

    /// Returns the charge and the size of the body. Fails with 503 if there was no room for the
    /// body; the request then had no effect.
    fn finish(&self) -> Result<(Option<Charge>, usize)> {
        let mut metered = self.0.lock();
        if metered.is_refused {
            return Err(Error::Unavailable(FULL));
        }
        Ok((metered.charge.take(), metered.bytes))
    }
}

fn is_small(headers: &HeaderMap, body: &Body) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    body.is_end_stream() || length.is_some_and(|length: usize| length <= UNCHARGED_BYTES)
}

struct MeteredBody {
    inner: Body,
    meter: Meter,
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let bytes =
            frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref().map(Bytes::len));
        if !self.meter.add(bytes.unwrap_or(0)) {
            return Poll::Ready(Some(Err(axum::Error::new(Error::Unavailable(FULL)))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Fails with 503 unless `account` has room to begin a write.
pub fn ensure_room_to_write(account: &Account) -> Result<()> {
    if account.has_room_to_write() { Ok(()) } else { Err(Error::Unavailable(FULL)) }
}

/// Charges `response` to `account` until its bytes are sent or dropped. If there is no room, a read
/// (`is_read`) gets 503; the response to a write is still sent, because the write has happened.
pub fn charged(
    response: Response,
    account: &Account,
    is_read: bool,
    meter: Option<&Meter>,
) -> Response {
    let (charge, body_bytes) = match meter.map(Meter::finish).transpose() {
        Ok(finished) => finished.unwrap_or_default(),
        Err(error) => return error.into_response(),
    };
    let size = response.body().size_hint().exact();
    let Some(bytes) = size.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)) else {
        if is_read && !account.has_room() {
            return Error::Unavailable(FULL).into_response();
        }
        // A list created from a large body is about as large, and in memory until it is sent.
        let held = charge.map(|mut charge| {
            charge.set(body_bytes);
            charge
        });
        let account = account.clone();
        return response.map(|inner| Body::new(StreamedBody { inner, account, held, wait: None }));
    };
    if bytes <= UNCHARGED_BYTES {
        return response;
    }
    let charge = match charge {
        Some(mut charge) => {
            charge.set(bytes);
            charge
        }
        None if !is_read => account.charge(bytes),
        None => match account.take(bytes) {
            Some(charge) => charge,
            None => return Error::Unavailable(FULL).into_response(),
        },
    };
    let charge = Arc::new(charge);
    response.map(|inner| Body::new(BufferedBody { inner, charge }))
}

/// Bytes that stay charged until the last reference to them is dropped. Dropping the body is too
/// early: the connection drops it when it takes the last chunk, and sends that chunk later.
struct ChargedBytes<C>(Bytes, C);

impl<C> AsRef<[u8]> for ChargedBytes<C> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A response body that is completely in memory.
struct BufferedBody {
    inner: Body,
    charge: Arc<Charge>,
}

impl HttpBody for BufferedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let hold = |bytes| Bytes::from_owner(ChargedBytes(bytes, self.charge.clone()));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body that is read in chunks; each chunk waits until the account has room. A client
/// that does not read is disconnected by the idle timeout.
struct StreamedBody {
    inner: Body,
    account: Account,
    /// The charge for data already in memory. Sending it frees memory, so it needs no room.
    held: Option<Charge>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for StreamedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(context));
                self.wait = None;
            }
            if self.held.is_some() || self.account.has_room() {
                break;
            }
            self.wait = Some(Box::pin(sleep(ROOM_CHECK_INTERVAL)));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let hold = |bytes: Bytes| {
            if bytes.len() <= UNCHARGED_CHUNK_BYTES {
                return bytes;
            }
            let charge = self.account.charge(bytes.len());
            Bytes::from_owner(ChargedBytes(bytes, charge))
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
