//! Notices of what happens to keys, for another server. They are written in the transaction of
//! what they tell, and delivered afterwards: at least once, by one process at a time.
//! docs/WEBHOOKS.md is what receivers read.

mod backoff;
mod deliver;
mod outbox;
mod receiver;

pub use deliver::{DeliverError, Deliverer};

use crate::core::clock::Timestamp;
use crate::core::config::{Config, Webhook};
use crate::db::Tx;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

/// What a notice tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was made.
    KeyCreated,
    /// Another key took its place.
    KeyRotated,
    /// It was switched off.
    KeyDeactivated,
    /// It was removed.
    KeyDeleted,
    /// Its end comes soon.
    KeyExpiring,
    /// It was switched off because its time had come.
    KeyExpired,
    /// Somebody shows bad credentials again and again.
    AuthenticationFailing,
}

impl Event {
    /// As it is stored and sent.
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

/// The body of a notice, in the order and with the names that the Standard Webhooks recommend.
#[derive(Serialize)]
struct Payload<'p> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: &'p Value,
}

/// Writes notices, if anybody wants them. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Webhooks {
    receiver: Option<Arc<Webhook>>,
    waiting: Arc<AtomicUsize>,
}

impl Webhooks {
    /// Does nothing when `WEBHOOK_URL` is not set.
    pub fn new(config: &Config) -> Self {
        Self { receiver: config.webhook.clone().map(Arc::new), waiting: Arc::default() }
    }

    /// Whether anybody wants notices.
    pub fn is_configured(&self) -> bool {
        self.receiver.is_some()
    }

    /// How many notices waited when this process last looked.
    pub fn queue(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Writes a notice in the transaction of what it tells: they commit or roll back together.
    /// `data` holds no secret.
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
