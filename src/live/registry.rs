//! The subscriptions of this process.

use super::outgoing::Outgoing;
use super::slots::{StreamSlot, StreamSlots};
use crate::db::Db;
use dashmap::DashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// All subscriptions of this process. Clones share state.
#[derive(Clone, Debug)]
pub struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    topics: Topics,
    slots: Arc<StreamSlots>,
    /// Notifications for other processes; `None` for SQLite, which has no notifications.
    outgoing: Option<Outgoing>,
}

/// The notification channel of each topic that has subscribers.
type Topics = DashMap<i64, watch::Sender<()>>;

/// A subscription to a topic, until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    live: Arc<Inner>,
    topic: i64,
    /// `None` only while the subscription is being dropped.
    changes: Option<watch::Receiver<()>>,
}

impl Live {
    /// Creates an empty registry. Processes on the same Postgres notify one another while
    /// `relay::run` runs.
    pub fn new(db: &Db) -> Self {
        let outgoing = matches!(db, Db::Postgres { .. }).then(Outgoing::default);
        Self(Arc::new(Inner { topics: Topics::new(), slots: Arc::default(), outgoing }))
    }

    /// Notifies the subscribers of `topic`. Call it after the change is committed.
    pub fn notify(&self, topic: i64) {
        self.wake(topic);
        if let Some(outgoing) = &self.0.outgoing {
            outgoing.add(topic);
        }
    }

    /// Subscribes to `topic`.
    pub fn subscribe(&self, topic: i64) -> Subscription {
        let changes =
            self.0.topics.entry(topic).or_insert_with(|| watch::Sender::new(())).subscribe();
        Subscription { live: self.0.clone(), topic, changes: Some(changes) }
    }

    /// Takes one of at most `max` stream slots of `holder`; `None` when all are taken.
    pub fn slot(&self, holder: String, max: usize) -> Option<StreamSlot> {
        StreamSlot::take(&self.0.slots, holder, max)
    }

    /// Number of topics with subscribers.
    pub fn len(&self) -> usize {
        self.0.topics.len()
    }

    /// Returns whether no topic has subscribers.
    pub fn is_empty(&self) -> bool {
        self.0.topics.is_empty()
    }

    /// Notifications for other processes; `None` for SQLite.
    pub(super) fn outgoing(&self) -> Option<&Outgoing> {
        self.0.outgoing.as_ref()
    }

    /// Notifies the subscribers of `topic` in this process only.
    pub(super) fn wake(&self, topic: i64) {
        if let Some(sender) = self.0.topics.get(&topic) {
            sender.send_replace(());
        }
    }

    /// Notifies all subscribers in this process.
    pub(super) fn wake_all(&self) {
        for sender in &self.0.topics {
            sender.send_replace(());
        }
    }
}

impl Subscription {
    /// Completes when the topic has changed since the last call. Several changes count as one.
    pub async fn changed(&mut self) {
        if let Some(changes) = &mut self.changes {
            // Cannot fail: the sender exists while the topic has subscribers.
            let _ = changes.changed().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Drop the receiver first, so that the last of several concurrent drops sees no receivers.
        drop(self.changes.take());
        self.live.topics.remove_if(&self.topic, |_, sender| sender.receiver_count() == 0);
    }
}
