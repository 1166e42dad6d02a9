//! Tells those who watch a topic that something happened in it. What, they read in the database.

pub mod relay;
mod seats;

pub use seats::Seat;

use crate::db::Db;
use dashmap::DashMap;
use relay::Outgoing;
use seats::Seats;
use std::sync::Arc;
use tokio::sync::watch;

/// Who watches what. Clones share it.
#[derive(Clone, Debug)]
pub struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    topics: Topics,
    seats: Arc<Seats>,
    /// What other processes are to be told; `None` where they cannot be.
    outgoing: Option<Outgoing>,
}

/// Topics are named by numbers; those nobody watches take no room.
type Topics = DashMap<i64, watch::Sender<()>>;

/// Somebody who watches a topic.
#[derive(Debug)]
pub struct Watching {
    live: Arc<Inner>,
    topic: i64,
    /// There until it is dropped.
    news: Option<watch::Receiver<()>>,
}

impl Live {
    /// Nobody watches yet. Processes on the same Postgres tell one another, once [`relay::run`]
    /// runs.
    pub fn new(db: &Db) -> Self {
        let outgoing = matches!(db, Db::Postgres { .. }).then(Outgoing::default);
        Self(Arc::new(Inner { topics: Topics::new(), seats: Arc::default(), outgoing }))
    }

    /// To be called after something that happened in `topic` was committed.
    pub fn happened(&self, topic: i64) {
        self.wake(topic);
        if let Some(outgoing) = &self.0.outgoing {
            outgoing.add(topic);
        }
    }

    /// Watches `topic` from now on.
    pub fn watch(&self, topic: i64) -> Watching {
        let news = self.0.topics.entry(topic).or_insert_with(|| watch::Sender::new(())).subscribe();
        Watching { live: self.0.clone(), topic, news: Some(news) }
    }

    /// A place for `holder`, who may have `most` at a time; `None` when all are taken.
    pub fn seat(&self, holder: String, most: usize) -> Option<Seat> {
        Seat::take(&self.0.seats, holder, most)
    }

    /// Topics that are watched now.
    pub fn len(&self) -> usize {
        self.0.topics.len()
    }

    /// Whether none is watched.
    pub fn is_empty(&self) -> bool {
        self.0.topics.is_empty()
    }

    fn wake(&self, topic: i64) {
        if let Some(sender) = self.0.topics.get(&topic) {
            sender.send_replace(());
        }
    }

    fn wake_all(&self) {
        for sender in &self.0.topics {
            sender.send_replace(());
        }
    }
}

impl Watching {
    /// Comes back when something happened since the last call, however much.
    pub async fn news(&mut self) {
        if let Some(news) = &mut self.news {
            // The sender stays as long as anybody watches.
            let _ = news.changed().await;
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // First its own: of two who leave at the same time, the later one finds nobody left.
        drop(self.news.take());
        self.live.topics.remove_if(&self.topic, |_, sender| sender.receiver_count() == 0);
    }
}
