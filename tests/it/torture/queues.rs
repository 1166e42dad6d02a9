//! How long the connections of a server stood still before it ended them, as the system sees it. A
//! client cannot tell: one that neither reads nor can write hears of the end when its own system
//! next asks for room, which it does ever less often, and TCP_USER_TIMEOUT ends a connection without
//! a word.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// As /proc/net/tcp calls it.
const ESTABLISHED: &str = "01";
/// How often is looked.
const PERIOD: Duration = Duration::from_millis(100);

/// The connections of a server, by the ports of its clients.
#[derive(Clone, Default)]
pub struct Queues(Arc<Mutex<HashMap<u16, Queue>>>);

struct Queue {
    /// What waits to be sent and to be read.
    bytes: String,
    moved: Instant,
    /// When it was seen last; `true` for one that is gone.
    seen: (Instant, bool),
}

impl Queues {
    /// Looks at the connections of the server at `address`, for ever.
    pub async fn watch(self, address: SocketAddr) {
        loop {
            self.look(address.port());
            sleep(PERIOD).await;
        }
    }

    /// Waits until the server has ended the connection from `port`; how long nothing had moved on it.
    pub async fn end(&self, port: u16) -> Duration {
        loop {
            sleep(PERIOD).await;
            if let Some(Queue { moved, seen: (end, true), .. }) = self.0.lock().unwrap().get(&port)
            {
                return *end - *moved;
            }
        }
    }

    /// Forgets a connection from `port` that was there before.
    pub fn begin(&self, port: u16) {
        self.0.lock().unwrap().remove(&port);
    }

    /// Lines of proc_net_tcp(5): number, local and remote address, state, both queues.
    fn look(&self, server: u16) {
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
