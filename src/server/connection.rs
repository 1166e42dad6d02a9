//! Connection limits: how many connections are open, and how long one may make no progress.

use crate::core::metrics::{CONNECTIONS, CONNECTIONS_REFUSED};
use crate::http::ClientBucket;
use axum::extract::connect_info::Connected;
use axum_server::accept::Accept;
use axum_server::{AddrListener, Address};
use ipnet::IpNet;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tower::Service;

/// Response to a connection beyond the total limit. Sent without reading the request.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    content-length: 56\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"detail\":\"The server has too many connections for now\"}";
/// Response to a connection beyond the limit per client. Sent without reading the request.
const CLIENT_FULL: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n\
    content-length: 51\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"detail\":\"Too many connections from this address\"}";
/// Time limit for sending such a response.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(200);

/// Maximum number of accepted connections that have neither a slot nor a response yet. Without it, a
/// burst of connections could use up all file descriptors before the first of them is refused.
const MAX_PENDING: usize = 4;

/// The address of a client, for connections accepted by a [`PacedListener`].
#[derive(Clone, Debug)]
pub struct Peer(SocketAddr);

impl Address for Peer {
    type Stream = PendingStream;
    type Listener = PacedListener;
}

impl Connected<Peer> for SocketAddr {
    fn connect_info(peer: Peer) -> Self {
        peer.0
    }
}

/// A connection that has been accepted, but neither admitted nor refused.
#[derive(Debug)]
pub struct PendingStream {
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
}

/// Accepts the next connection only while fewer than [`MAX_PENDING`] are pending.
#[derive(Debug)]
pub struct PacedListener {
    listener: TcpListener,
    pending: Arc<Semaphore>,
}

impl PacedListener {
    /// Accepts connections from `listener`, which becomes non-blocking.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::of(TcpListener::from_std(listener)?))
    }

    fn of(listener: TcpListener) -> Self {
        Self { listener, pending: Arc::new(Semaphore::new(MAX_PENDING)) }
    }
}

impl AddrListener<PendingStream, Peer> for PacedListener {
    async fn bind_to(Peer(address): Peer) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::of)
    }

    async fn accept_stream(&self) -> io::Result<(PendingStream, Peer)> {
        let permit = self.pending.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = self.listener.accept().await?;
        Ok((PendingStream { stream, permit }, Peer(peer)))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer)
    }
}

/// Accepts a limited number of connections, and closes those that make no progress.
#[derive(Clone, Debug)]
pub struct ConnectionLimiter {
    slots: Arc<Semaphore>,
    clients: Arc<Clients>,
    idle: Duration,
}

impl ConnectionLimiter {
    /// Allows `max` connections in total and `of_client` per client; `trusted` proxies have no
    /// client limit. A connection may make no progress for at most `idle`.
    pub fn new(max: usize, of_client: usize, trusted: Vec<IpNet>, idle: Duration) -> Self {
        let clients = Clients { max: of_client, trusted, open: Mutex::default() };
        let slots = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Self { slots, clients: Arc::new(clients), idle }
    }

    /// Takes a slot for a connection from `peer`. Fails with the response to send if there is none.
    fn admit(&self, peer: IpAddr) -> Result<Slot, &'static [u8]> {
        let all = self.slots.clone().try_acquire_owned().map_err(|_| FULL)?;
        let of_client = Clients::admit(&self.clients, peer).ok_or(CLIENT_FULL)?;
        Ok(Slot { _all: all, _of_client: of_client })
    }
}

/// Number of open connections per client.
#[derive(Debug)]
struct Clients {
    max: usize,
    trusted: Vec<IpNet>,
    open: Mutex<HashMap<ClientBucket, usize>>,
}

impl Clients {
    fn admit(clients: &Arc<Self>, peer: IpAddr) -> Option<ClientSlot> {
        // A trusted proxy connects on behalf of many clients.
        let peer = peer.to_canonical();
        let is_trusted = clients.trusted.iter().any(|network| network.contains(&peer));
        if is_trusted {
            return Some(ClientSlot(None));
        }
        let bucket = ClientBucket::of(peer);
        let mut open = clients.lock();
        let count = open.entry(bucket).or_default();
        if *count >= clients.max {
            return None;
        }
        *count += 1;
        drop(open);
        Some(ClientSlot(Some((clients.clone(), bucket))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientBucket, usize>> {
        self.open.lock()
    }
}

/// A counted connection of a client; `None` for a trusted proxy, which is not counted.
#[derive(Debug)]
struct ClientSlot(Option<(Arc<Clients>, ClientBucket)>);

impl Drop for ClientSlot {
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

/// The slots that an open connection occupies.
#[derive(Debug)]
struct Slot {
    _all: OwnedSemaphorePermit,
    _of_client: ClientSlot,
}

impl<S: Send + 'static> Accept<PendingStream, S> for ConnectionLimiter {
    type Stream = IdleTimeoutStream;
    type Service = Counted<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(IdleTimeoutStream, Counted<S>)>> + Send>>;

    fn accept(&self, pending: PendingStream, service: S) -> Self::Future {
        let (limiter, idle) = (self.clone(), self.idle);
        Box::pin(async move {
            let PendingStream { mut stream, permit } = pending;
            let slot = match limiter.admit(stream.peer_addr()?.ip()) {
                Ok(slot) => slot,
                Err(response) => {
                    metrics::counter!(CONNECTIONS_REFUSED).increment(1);
                    let _ = timeout(REFUSAL_TIMEOUT, stream.write_all(response)).await;
                    return Err(io::Error::other("too many connections"));
                }
            };
            drop(permit);
            // A response is written in one piece, so delaying it (Nagle's algorithm) gains nothing.
            stream.set_nodelay(true)?;
            // A peer that has disappeared acknowledges no data. While there is data to send, the
            // default TCP timeout would keep its connection open for about 15 minutes.
            #[cfg(target_os = "linux")]
            socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(idle))?;
            let in_flight = Arc::new(AtomicUsize::new(0));
            let service = Counted { service, in_flight: in_flight.clone() };
            Ok((IdleTimeoutStream::new(stream, idle, in_flight, slot), service))
        })
    }
}

/// A connection that fails with a timeout when it makes no progress in either direction, except
/// while the server processes its request.
#[derive(Debug)]
pub struct IdleTimeoutStream {
    stream: TcpStream,
    idle: Duration,
    last_progress: Instant,
    timer: Pin<Box<Sleep>>,
    in_flight: Arc<AtomicUsize>,
    _slot: Slot,
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

impl IdleTimeoutStream {
    fn new(stream: TcpStream, idle: Duration, in_flight: Arc<AtomicUsize>, slot: Slot) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + idle));
        Self { stream, idle, last_progress: now, timer, in_flight, _slot: slot, _open: Open::new() }
    }

    /// Returns `result`, or a timeout error if it has been pending for longer than `idle`.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() || self.in_flight.load(Ordering::Relaxed) > 0 {
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

impl AsyncRead for IdleTimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(context, result)
    }
}

impl AsyncWrite for IdleTimeoutStream {
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

/// A service that counts its requests in flight, for the idle timeout of its connection.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    service: S,
    in_flight: Arc<AtomicUsize>,
}

/// A request in flight.
struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
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
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let in_flight = InFlight(self.in_flight.clone());
        let response = self.service.call(request);
        Box::pin(async move {
            let result = response.await;
            drop(in_flight);
            result
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_vanished_peer_times_out_as_soon_as_a_silent_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap());
        let (stream, peer) = tokio::join!(listener.accept(), peer);
        let limiter = ConnectionLimiter::new(1, 1, vec![], Duration::from_secs(7));
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let pending = PendingStream { stream: stream.unwrap().0, permit };
        let (watched, _) = limiter.accept(pending, ()).await.unwrap();
        let timeout = socket2::SockRef::from(&watched.stream).tcp_user_timeout().unwrap();
        assert_eq!((timeout, peer.is_ok()), (Some(Duration::from_secs(7)), true));
    }

    #[test]
    fn the_response_to_a_refused_connection_has_its_length() {
        for response in [FULL, CLIENT_FULL] {
            let text = std::str::from_utf8(response).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let length = format!("content-length: {}\r\n", body.len());
            assert!(head.contains(&length), "{}", body.len());
            assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["detail"].is_string());
        }
    }

    #[test]
    fn a_client_has_a_connection_limit_and_a_trusted_proxy_only_the_total_limit() {
        let trusted = vec!["10.0.0.0/8".parse().unwrap()];
        let limiter = ConnectionLimiter::new(7, 2, trusted, Duration::from_secs(7));
        let admit = |peer: &str| limiter.admit(peer.parse().unwrap());
        let first = admit("192.0.2.1").unwrap();
        let _second = admit("::ffff:192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), CLIENT_FULL);
        // All addresses of a /64 are one client.
        let _others = [admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert_eq!(admit("2001:db8::3").unwrap_err(), CLIENT_FULL);
        let _proxy: Vec<Slot> = (0..3).map(|_| admit("10.0.0.1").unwrap()).collect();
        assert_eq!(admit("10.0.0.1").unwrap_err(), FULL);
        drop(first);
        let again = admit("192.0.2.1").unwrap();
        assert_eq!(limiter.clients.lock().len(), 2);
        drop(again);
    }
}
