//! Webhooks: notify another server of API key events. An event is stored in the transaction that
//! causes it and delivered after the commit: at least once, by one process at a time.
//! docs/WEBHOOKS.md is the documentation for receivers.

mod backoff;
mod deliver;
mod outbox;
mod receiver;

pub use deliver::{DeliverError, Deliverer};

use crate::core::clock::Timestamp;
use crate::core::config::{Config, WebhookConfig};
use crate::db::Tx;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

/// The type of a webhook event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An API key was created.
    KeyCreated,
    /// An API key was replaced by a new one.
    KeyRotated,
    /// An API key was deactivated.
    KeyDeactivated,
    /// An API key was deleted.
    KeyDeleted,
    /// An API key expires soon.
    KeyExpiring,
    /// An API key was deactivated because it expired.
    KeyExpired,
    /// A client repeatedly fails to authenticate.
    AuthenticationFailing,
}

impl Event {
    /// The name that is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyCreated => "api_key.created",
            Self::KeyRotated => "api_key.rotated",
            Self::KeyDeactivated => "api_key.deactivated",
            Self::KeyDeleted => "api_key.deleted",
            Self::KeyExpiring => "api_key.expiring",
            Self::KeyExpired => "api_key.expired",
            Self::AuthenticationFailing => "authentication.failing",
        }
    }
}

/// The body of a webhook event, with the field names and order that Standard Webhooks recommends.
#[derive(Serialize)]
struct Payload<'p> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: &'p Value,
}

/// Stores webhook events, if a webhook is configured. Clones share state.
#[derive(Clone, Debug)]
pub struct Webhooks {
    receiver: Option<Arc<WebhookConfig>>,
    waiting: Arc<AtomicUsize>,
}

impl Webhooks {
    /// Creates the webhooks of `config`. Without `WEBHOOK_URL`, events are not stored.
    pub fn new(config: &Config) -> Self {
        Self { receiver: config.webhook.clone().map(Arc::new), waiting: Arc::default() }
    }

    /// Returns whether `WEBHOOK_URL` is set.
    pub fn is_configured(&self) -> bool {
        self.receiver.is_some()
    }

    /// Number of undelivered events when this process last checked.
    pub fn queue(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Stores a webhook event in the transaction that causes it, so that both commit or roll back
    /// together. `data` must not contain secrets.
    pub async fn enqueue(
        &self,
        tx: &mut Tx,
        event: Event,
        data: &Value,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        if !self.is_configured() {
            return Ok(());
        }
        let payload = Payload { r#type: event.as_str(), timestamp: Timestamp(now), data };
        let payload = serde_json::to_string(&payload)
            .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
        let message_id = format!("msg_{}", Uuid::now_v7().simple());
        outbox::insert(tx, &message_id, event.as_str(), &payload, now).await
    }
}
