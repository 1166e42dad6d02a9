//! Detects changes of API keys on Postgres: triggers send the id of each changed key to
//! [`CHANNEL`].

use super::channel;
use sqlx::Result;
use sqlx_postgres::{PgListener, PgPool};

/// Notification channel for changes of API keys.
const CHANNEL: &str = "octopus_keys";

/// A separate connection that receives notifications.
#[derive(Debug)]
pub struct PostgresWatch(PgListener);

/// A notification received by a [`PostgresWatch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// The key with this id was changed.
    Changed(i64),
    /// The text of a [`Heartbeat`] from any process.
    Heartbeat(String),
    /// The connection was lost. Notifications sent before the next heartbeat may be missing.
    Lost,
}

/// Sends heartbeats, which show that the subscription still works.
#[derive(Debug)]
pub struct Heartbeat(PgPool);

impl PostgresWatch {
    /// Subscribes to changes.
    pub(crate) async fn connect(pool: &PgPool) -> Result<Self> {
        channel::subscribe(pool, CHANNEL).await.map(Self)
    }

    /// Waits for the next notification. After [`Notification::Lost`] it reconnects, and fails while
    /// it cannot.
    pub async fn next(&mut self) -> Result<Notification> {
        let Some(notification) = self.0.try_recv().await? else { return Ok(Notification::Lost) };
        let payload = notification.payload();
        Ok(match payload.parse() {
            Ok(id) => Notification::Changed(id),
            Err(_) => Notification::Heartbeat(payload.to_owned()),
        })
    }
}

impl Heartbeat {
    /// Creates a sender on `pool`.
    pub(crate) fn new(pool: &PgPool) -> Self {
        Self(pool.clone())
    }

    /// Sends `text`, which must not be a number.
    pub async fn send(&self, text: &str) -> Result<()> {
        channel::send(&self.0, CHANNEL, text).await
    }
}
