//! Measures how long connections of a server were idle before it closed them, from the kernel's
//! table of sockets. A client cannot measure this: if it neither reads nor can write, it detects
//! the end with the next window probe, whose intervals grow, and TCP_USER_TIMEOUT closes without a
//! packet.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The state in /proc/net/tcp, see proc_net_tcp(5).
const ESTABLISHED: &str = "01";
/// Sampling interval.
const PERIOD: Duration = Duration::from_millis(100);

/// The connections of a server, by client port.
#[derive(Clone, Default)]
pub struct Queues(Arc<Mutex<HashMap<u16, Queue>>>);

struct Queue {
    /// The sizes of the send and receive queues.
    bytes: String,
    moved: Instant,
    /// The time of the last sighting, and whether the connection is closed.
    seen: (Instant, bool),
}

impl Queues {
    /// Samples the connections of the server at `address`. Never returns.
    pub async fn monitor(self, address: SocketAddr) {
        loop {
            self.sample(address.port());
            sleep(PERIOD).await;
        }
    }

    /// Waits until the server closes the connection from `port`. Returns how long it was idle.
    pub async fn end(&self, port: u16) -> Duration {
        loop {
            sleep(PERIOD).await;
            if let Some(Queue { moved, seen: (end, true), .. }) = self.0.lock().unwrap().get(&port)
            {
                return *end - *moved;
            }
        }
    }

    /// Discards the data about an earlier connection from `port`.
    pub fn begin(&self, port: u16) {
        self.0.lock().unwrap().remove(&port);
    }

    /// Lines of proc_net_tcp(5): number, local and remote address, state, both queues.
    fn sample(&self, server: u16) {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let (now, mut queues) = (Instant::now(), self.0.lock().unwrap());
        for line in table.lines().skip(1) {
            let mut fields = line.split_whitespace().skip(1);
            let mut port = || {
                let (_, port) = fields.next()?.split_once(':')?;
                u16::from_str_radix(port, 16).ok()
            };
            let (local, remote) = (port().unwrap(), port().unwrap());
            let (state, bytes) = (fields.next().unwrap(), fields.next().unwrap());
            if local != server || state != ESTABLISHED {
                continue;
            }
            let new = || Queue { bytes: String::new(), moved: now, seen: (now, false) };
            let queue = queues.entry(remote).or_insert_with(new);
            queue.seen = (now, false);
            if queue.bytes != bytes {
                (queue.bytes, queue.moved) = (bytes.to_owned(), now);
            }
        }
        for queue in queues.values_mut() {
            queue.seen.1 = queue.seen.0 < now;
        }
    }
}
