//! Stores webhook events until they are delivered.

use super::event::Event;
use super::repository;
use crate::core::clock::Timestamp;
use crate::core::config::{Config, WebhookConfig};
use crate::db::Tx;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

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
    pub(super) receiver: Option<Arc<WebhookConfig>>,
    pub(super) waiting: Arc<AtomicUsize>,
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
        repository::insert(tx, &message_id, event.as_str(), &payload, now).await
    }
}
