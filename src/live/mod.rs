//! Tells those who watch a topic that something happened in it. What, they read in the database.

use dashmap::DashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Who watches what. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Topics>);

/// Topics are named by numbers; those nobody watches take no room.
#[derive(Debug, Default)]
struct Topics(DashMap<i64, watch::Sender<()>>);

/// Somebody who watches a topic.
#[derive(Debug)]
pub struct Watching {
    topics: Arc<Topics>,
    topic: i64,
    news: watch::Receiver<()>,
}

impl Live {
    /// To be called after something that happened in `topic` was committed.
    pub fn happened(&self, topic: i64) {
        if let Some(sender) = self.0.0.get(&topic) {
            sender.send_replace(());
        }
    }

    /// Watches `topic` from now on.
    pub fn watch(&self, topic: i64) -> Watching {
        let news = self.0.0.entry(topic).or_insert_with(|| watch::Sender::new(())).subscribe();
        Watching { topics: self.0.clone(), topic, news }
    }
}

impl Watching {
    /// Comes back when something happened since the last call, however much.
    pub async fn news(&mut self) {
        // The sender stays as long as anybody watches.
        let _ = self.news.changed().await;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // This one's own receiver is counted still.
        self.topics.0.remove_if(&self.topic, |_, sender| sender.receiver_count() <= 1);
    }
}
