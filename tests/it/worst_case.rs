//! The most expensive valid request of every operation: each gets a response, takes a bounded
//! amount of work, and does not delay other requests. docs/RELIABILITY.md has the figures;
//! `ci/worst-case.sh` measures them.

use crate::operations::{FILES, World, operations};
use crate::support::operations::{check_worst_requests, send_worst};
use crate::support::{Backend, measured, scale};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Concurrent requests of one account.
const IN_FLIGHT: usize = 8;
/// Operations whose worst request once took seconds, by method and path.
const EXPENSIVE: [(&str, &str); 9] = [
    ("post", "/api/v1/conversations"),
    ("post", "/api/v1/conversations/{conversation_id}/messages"),
    ("post", "/api/v1/conversations/{conversation_id}/messages/batch"),
    ("get", "/api/v1/conversations"),
    ("get", "/api/v1/conversations/{conversation_id}"),
    ("get", "/api/v1/conversations/{conversation_id}/messages"),
    ("get", "/api/v1/conversations/{conversation_id}/search"),
    ("post", "/api/v1/users"),
    ("get", "/docs/{name}"),
];

/// The longest time for `/health` while eight of the worst requests are in flight: for all but the
/// slowest hundredth in an optimised build. An unoptimised build that shares cores with other tests
/// cannot keep that; only half of its responses must arrive within a second.
fn health_is_good(health: &Slowest) -> bool {
    let is_p99_good = health.p99 < Duration::from_millis(100);
    scale(health.median < Duration::from_secs(1), is_p99_good)
}

#[apply(on_both!)]
async fn the_worst_request_of_every_operation_is_answered_within_its_bound(backend: Backend) {
    let world = World::new(&backend).await;
    check_worst_requests(&world, FILES.iter().chain(operations())).await;
}

#[apply(on_both!)]
async fn eight_of_the_worst_requests_do_not_delay_others(backend: Backend) {
    let world = World::new(&backend).await;
    for worst in EXPENSIVE {
        let mut rows = FILES.iter().chain(operations());
        let row = rows.find(|row| (row.method, row.path) == worst).expect("each has a row");
        let place = row.name();
        let load = async {
            let mut clients = JoinSet::new();
            let end = Instant::now() + scale(Duration::from_secs(2), Duration::from_secs(10));
            for _ in 0..IN_FLIGHT {
                let world = world.clone();
                clients.spawn(async move {
                    while Instant::now() < end {
                        let (status, _) = send_worst(&world, row).await;
                        // Other tests' limits do not apply, but the queue of writers does.
                        assert!(status < 500 || status == 503 || status == 504, "{status}");
                    }
                });
            }
            while let Some(ended) = clients.join_next().await {
                ended.expect("every answer is one that is documented");
            }
        };
        let (mut health, mut writes) = (vec![], vec![]);
        let probes = async {
            loop {
                health.push(probe(&world, "/health").await);
                sleep(Duration::from_millis(5)).await;
            }
        };
        let others = async {
            loop {
                let started = Instant::now();
                let answer = world.other_writes().send().await;
                assert_eq!(answer.status, 201, "{place}: another user's write: {}", answer.text);
                writes.push(started.elapsed());
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            ended = timeout(Duration::from_mins(4), load) => ended.expect("the load ends"),
            () = probes => unreachable!(),
            () = others => unreachable!(),
        }
        let (health, writes) = (Slowest::of(health), Slowest::of(writes));
        measured(&format!("eight of {place}: /health {health}, another user's writes {writes}"));
        assert!(health_is_good(&health), "{place}: /health {health}");
    }
}

async fn probe(world: &World, path: &str) -> Duration {
    let started = Instant::now();
    assert_eq!(world.anonymous("GET", path).open().await.status(), 200);
    started.elapsed()
}

/// The durations of requests.
struct Slowest {
    count: usize,
    median: Duration,
    p99: Duration,
    max: Duration,
}

impl Slowest {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |hundredths: usize| {
            let last = times.len().saturating_sub(1);
            times.get(last * hundredths / 100).copied().unwrap_or_default()
        };
        Self { count: times.len(), median: at(50), p99: at(99), max: at(100) }
    }
}

impl std::fmt::Display for Slowest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [median, p99, max] = [self.median, self.p99, self.max].map(|time| time.as_millis());
        write!(f, "median {median} ms, p99 {p99} ms, max {max} ms of {}", self.count)
    }
}
