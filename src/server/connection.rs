//! Connections: how many, and how long they may make no progress.

use crate::core::metrics::{CONNECTIONS, CONNECTIONS_REFUSED};
use crate::http::ClientBucket;
use axum_server::accept::Accept;
use ipnet::IpNet;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tower::Service;

/// What a connection too many gets. It is written without reading its request.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    content-length: 56\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"detail\":\"The server has too many connections for now\"}";
/// What a connection gets whose client has as many as one may. The same.
const CLIENT_FULL: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n\
    content-length: 51\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"detail\":\"Too many connections from this address\"}";
/// How long such a connection may take to take it.
const FULL_PATIENCE: Duration = Duration::from_millis(200);

/// Lets in a number of connections, and watches that each makes progress.
#[derive(Clone, Debug)]
pub struct Gate {
    places: Arc<Semaphore>,
    clients: Arc<Clients>,
    idle: Duration,
}

impl Gate {
    /// `max` connections, `of_client` from one address that is none of the `trusted` proxies, each
    /// silent for at most `idle`.
    pub fn new(max: usize, of_client: usize, trusted: Vec<IpNet>, idle: Duration) -> Self {
        let clients = Clients { most: of_client, trusted, open: Mutex::default() };
        let places = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Self { places, clients: Arc::new(clients), idle }
    }

    /// A place for a connection from `peer`, or the answer that there is none.
    fn admit(&self, peer: IpAddr) -> Result<Place, &'static [u8]> {
        let all = self.places.clone().try_acquire_owned().map_err(|_| FULL)?;
        let of_client = Clients::admit(&self.clients, peer).ok_or(CLIENT_FULL)?;
        Ok(Place { _all: all, _of_client: of_client })
    }
}

/// How many connections each client has open.
#[derive(Debug)]
struct Clients {
    most: usize,
    trusted: Vec<IpNet>,
    open: Mutex<HashMap<ClientBucket, usize>>,
}

impl Clients {
    fn admit(clients: &Arc<Self>, peer: IpAddr) -> Option<OfClient> {
        // Behind a trusted proxy are many clients.
        let peer = peer.to_canonical();
        let is_trusted = clients.trusted.iter().any(|network| network.contains(&peer));
        if is_trusted {
            return Some(OfClient(None));
        }
        let bucket = ClientBucket::of(peer);
        let mut open = clients.lock();
        let count = open.entry(bucket).or_default();
        if *count >= clients.most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(OfClient(Some((clients.clone(), bucket))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientBucket, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection of a client, unless nobody counts them.
#[derive(Debug)]
struct OfClient(Option<(Arc<Clients>, ClientBucket)>);

impl Drop for OfClient {
    fn drop(&mut self) {
        let Some((clients, bucket)) = &self.0 else { return };
        if let Entry::Occupied(mut open) = clients.lock().entry(*bucket) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// What an open connection occupies.
#[derive(Debug)]
struct Place {
    _all: OwnedSemaphorePermit,
    _of_client: OfClient,
}

impl<S: Send + 'static> Accept<TcpStream, S> for Gate {
    type Stream = Watched;
    type Service = Counted<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Watched, Counted<S>)>> + Send>>;

    fn accept(&self, mut stream: TcpStream, service: S) -> Self::Future {
        let (gate, idle) = (self.clone(), self.idle);
        Box::pin(async move {
            let place = match gate.admit(stream.peer_addr()?.ip()) {
                Ok(place) => place,
                Err(answer) => {
                    metrics::counter!(CONNECTIONS_REFUSED).increment(1);
                    let _ = timeout(FULL_PATIENCE, stream.write_all(answer)).await;
                    return Err(io::Error::other("too many connections"));
                }
            };
            // An answer is written at once, so there is nothing to gather by waiting.
            stream.set_nodelay(true)?;
            // A peer that has vanished acknowledges nothing. The system alone would wait for it for a
            // quarter of an hour, as long as there is something to send from time to time.
            #[cfg(target_os = "linux")]
            socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(idle))?;
            let at_work = Arc::new(AtomicUsize::new(0));
            let service = Counted { service, at_work: at_work.clone() };
            Ok((Watched::new(stream, idle, at_work, place), service))
        })
    }
}

/// A connection that fails when it makes no progress in either direction, unless the server itself
/// is at work on its request.
#[derive(Debug)]
pub struct Watched {
    stream: TcpStream,
    idle: Duration,
    last_progress: Instant,
    timer: Pin<Box<Sleep>>,
    at_work: Arc<AtomicUsize>,
    _place: Place,
    _open: Open,
}

/// Counts open connections.
#[derive(Debug)]
struct Open;

impl Open {
    fn new() -> Self {
        metrics::gauge!(CONNECTIONS).increment(1);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!(CONNECTIONS).decrement(1);
    }
}

impl Watched {
    fn new(stream: TcpStream, idle: Duration, at_work: Arc<AtomicUsize>, place: Place) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + idle));
        Self { stream, idle, last_progress: now, timer, at_work, _place: place, _open: Open::new() }
    }

    /// Passes on `result`, or fails when it is pending and has been for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() || self.at_work.load(Ordering::Relaxed) > 0 {
            self.last_progress = Instant::now();
            return result;
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            let end = self.last_progress + self.idle;
            if Instant::now() >= end {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(end);
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(context, result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A service that tells its connection when it is at work.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    service: S,
    at_work: Arc<AtomicUsize>,
}

/// One request at work.
struct AtWork(Arc<AtomicUsize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<R, S: Service<R>> Service<R> for Counted<S>
where
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        let at_work = AtWork(self.at_work.clone());
        let answering = self.service.call(request);
        Box::pin(async move {
            let result = answering.await;
            drop(at_work);
            result
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_peer_that_vanishes_is_given_up_as_soon_as_one_that_is_silent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap());
        let (stream, peer) = tokio::join!(listener.accept(), peer);
        let gate = Gate::new(1, 1, vec![], Duration::from_secs(7));
        let (watched, _) = gate.accept(stream.unwrap().0, ()).await.unwrap();
        let patience = socket2::SockRef::from(&watched.stream).tcp_user_timeout().unwrap();
        assert_eq!((patience, peer.is_ok()), (Some(Duration::from_secs(7)), true));
    }

    #[test]
    fn the_answer_to_a_connection_too_many_says_its_length() {
        for answer in [FULL, CLIENT_FULL] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let length = format!("content-length: {}\r\n", body.len());
            assert!(head.contains(&length), "{}", body.len());
            assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["detail"].is_string());
        }
    }

    #[test]
    fn a_client_has_so_many_connections_and_a_trusted_proxy_as_many_as_there_are() {
        let trusted = vec!["10.0.0.0/8".parse().unwrap()];
        let gate = Gate::new(7, 2, trusted, Duration::from_secs(7));
        let admit = |peer: &str| gate.admit(peer.parse().unwrap());
        let first = admit("192.0.2.1").unwrap();
        let _second = admit("::ffff:192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), CLIENT_FULL);
        // A subscriber has a whole /64.
        let _others = [admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert_eq!(admit("2001:db8::3").unwrap_err(), CLIENT_FULL);
        let _proxy: Vec<Place> = (0..3).map(|_| admit("10.0.0.1").unwrap()).collect();
        assert_eq!(admit("10.0.0.1").unwrap_err(), FULL);
        drop(first);
        let again = admit("192.0.2.1").unwrap();
        assert_eq!(gate.clients.lock().len(), 2);
        drop(again);
    }
}
