//! Bodies that are charged to an [`Account`]: a request's while it is worked on, and an answer's
//! until the connection has sent it.

use super::budget::{Account, Charge};
use crate::core::error::{Error, Result};
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// Bodies up to this many bytes are not charged: what a connection costs anyway.
const FREE: usize = 64 * 1024;
/// Parts of a streamed answer up to this many bytes are not charged.
const FREE_PART: usize = 16 * 1024;
/// Bytes of memory for each byte of a JSON body: it is collected, parsed, bound to a statement and
/// often part of the answer.
const COPIES: usize = 4;
/// How often a streamed answer that waits for room looks for it.
const LOOK: Duration = Duration::from_millis(100);
const FULL: &str = "Too many large requests and answers are in flight: read the answers that are \
    open, and try again";

/// What a request's body is charged. Clones share it.
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
    /// Charges `account` for what is read of the body of `request`; `None` where that is small.
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

    /// Whether there is room for `bytes` more.
    fn add(&self, bytes: usize) -> bool {
        let mut metered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let metered = &mut *metered;
        metered.bytes = metered.bytes.saturating_add(bytes);
        let wanted = metered.bytes.saturating_mul(COPIES);
        let has_room = match &mut metered.charge {
            _ if metered.bytes <= FREE => true,
            Some(charge) => charge.grow_to(wanted),
            None => {
                metered.charge = metered.account.take(wanted);
                metered.charge.is_some()
            }
        };
        metered.is_refused |= !has_room;
        has_room
    }

    /// What was charged, and the bytes of the body. Fails with 503 where there was no room for the
    /// body: then nothing of the request has happened.
    fn finish(&self) -> Result<(Option<Charge>, usize)> {
        let mut metered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if metered.is_refused {
            return Err(Error::Unavailable(FULL));
        }
        Ok((metered.charge.take(), metered.bytes))
    }
}

fn is_small(headers: &HeaderMap, body: &Body) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    body.is_end_stream() || length.is_some_and(|length: usize| length <= FREE)
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

/// Fails with 503 unless `account` may begin a write now.
pub fn may_write(account: &Account) -> Result<()> {
    if account.has_room_to_write() { Ok(()) } else { Err(Error::Unavailable(FULL)) }
}

/// `response`, charged to `account` until its bytes are sent or dropped. Where there is no room for
/// it: 503 for a read (`is_read`); the answer to a write, which has happened, is sent all the same.
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
        // A list that a large body made is about as large as the body, and in memory until it is sent.
        let held = charge.map(|mut charge| {
            charge.set(body_bytes);
            charge
        });
        let account = account.clone();
        return response.map(|inner| Body::new(Streamed { inner, account, held, wait: None }));
    };
    if bytes <= FREE {
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
    response.map(|inner| Body::new(Whole { inner, charge }))
}

/// Bytes that are charged for until the last reference to them is dropped: the connection drops the
/// body as soon as it has taken its last part, and sends that later.
struct Held<C>(Bytes, C);

impl<C> AsRef<[u8]> for Held<C> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// An answer that is there as a whole.
struct Whole {
    inner: Body,
    charge: Arc<Charge>,
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let hold = |bytes| Bytes::from_owner(Held(bytes, self.charge.clone()));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer that is read in parts: the next one when the account has room again. A client that
/// keeps the account from having any is cut off for making no progress.
struct Streamed {
    inner: Body,
    account: Account,
    /// For what is in memory already: sending it makes room, and so does not wait for any.
    held: Option<Charge>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Streamed {
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
            self.wait = Some(Box::pin(sleep(LOOK)));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let hold = |bytes: Bytes| {
            if bytes.len() <= FREE_PART {
                return bytes;
            }
            let charge = self.account.charge(bytes.len());
            Bytes::from_owner(Held(bytes, charge))
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
