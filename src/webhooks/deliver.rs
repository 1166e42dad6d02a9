//! Delivers the webhook events in the outbox.

use super::backoff::{MAX_WAIT, next_attempt};
use super::outbox::Webhooks;
use super::receiver::{Failure, Receiver};
use super::repository::{self, WebhookEvent};
use crate::core::clock::Clock;
use crate::core::datetime::MAX_AHEAD;
use crate::core::metrics::WEBHOOK_DELIVERIES;
use crate::db::{Db, lease};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::StatusCode;
use std::sync::atomic::Ordering;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Name of the lease that allows a process to deliver. If two processes deliver, an event may
/// arrive twice; receivers must expect that in any case.
const LEASE_NAME: &str = "webhooks";
/// Duration of the lease. It is renewed before each attempt and is much longer than one.
const LEASE_TIME: TimeDelta = TimeDelta::minutes(1);
/// Retention of undeliverable events, for operators to inspect.
const RETENTION: TimeDelta = TimeDelta::days(30);
/// How often older undeliverable events are deleted.
const PRUNE_INTERVAL: TimeDelta = TimeDelta::hours(1);

/// Why delivery failed.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The outbox could not be read or written.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// The HTTP client could not be created.
    #[error("cannot create the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Delivers webhook events. Of several processes, only the one that holds the lease delivers.
pub struct Deliverer {
    webhooks: Webhooks,
    db: Db,
    clock: Clock,
    receiver: Receiver,
    origin: String,
    /// Id of this process in the lease.
    holder: String,
    has_lease: bool,
    next_pruning: DateTime<Utc>,
}

/// The latest time for which an attempt can be scheduled at `now`.
fn latest(now: DateTime<Utc>) -> DateTime<Utc> {
    now + MAX_WAIT + MAX_AHEAD
}

impl Deliverer {
    /// Creates a deliverer; `None` when no webhook is configured.
    pub fn new(webhooks: &Webhooks, db: &Db, clock: &Clock) -> Result<Option<Self>, DeliverError> {
        let Some(receiver) = &webhooks.receiver else { return Ok(None) };
        Ok(Some(Self {
            webhooks: webhooks.clone(),
            db: db.clone(),
            clock: clock.clone(),
            receiver: Receiver::new(receiver)?,
            origin: receiver.origin.clone(),
            holder: Uuid::new_v4().to_string(),
            has_lease: false,
            next_pruning: clock.now(),
        }))
    }

    /// Sends each due event once, in the order of creation, if this process can take the lease. A
    /// failed event waits for its next attempt and does not block the events after it.
    pub async fn deliver_due(&mut self, stop: &CancellationToken) -> Result<(), DeliverError> {
        self.prune().await?;
        let (waiting, first, last) = repository::waiting(&self.db).await?;
        self.webhooks.waiting.store(usize::try_from(waiting).unwrap_or(0), Ordering::Relaxed);
        let now = self.clock.now();
        if first.is_none_or(|first| first.0 > now) && last.is_none_or(|last| last.0 <= latest(now))
        {
            return Ok(());
        }
        let mut last = 0;
        while !stop.is_cancelled() && self.take_lease().await? {
            let now = self.clock.now();
            let Some(event) = repository::next_due(&self.db, now, latest(now), last).await? else {
                break;
            };
            // Shutdown cancels only the HTTP request, not the database statements.
            let sent = stop.run_until_cancelled(self.receiver.send(&event, now)).await;
            match sent {
                Some(Ok(status)) => self.record_delivery(&event, status).await?,
                Some(Err(failure)) => self.record_failure(&event, failure).await?,
                None => break,
            }
            last = event.id;
        }
        Ok(())
    }

    /// Releases the lease, so that another process can deliver immediately.
    pub async fn release(&mut self) -> Result<(), DeliverError> {
        if self.has_lease {
            let mut tx = self.db.begin().await?;
            lease::release(&mut tx, LEASE_NAME, &self.holder).await?;
            tx.commit().await?;
            self.has_lease = false;
        }
        Ok(())
    }

    async fn take_lease(&mut self) -> sqlx::Result<bool> {
        let mut tx = self.db.begin().await?;
        let now = self.clock.now();
        self.has_lease =
            lease::take(&mut tx, LEASE_NAME, &self.holder, now, now + LEASE_TIME).await?;
        tx.commit().await?;
        Ok(self.has_lease)
    }

    async fn record_delivery(&self, event: &WebhookEvent, status: StatusCode) -> sqlx::Result<()> {
        let mut tx = self.db.begin().await?;
        repository::delete(&mut tx, event.id).await?;
        tx.commit().await?;
        metrics::counter!(WEBHOOK_DELIVERIES, "outcome" => "delivered").increment(1);
        tracing::info!(
            event = "webhook.delivered",
            message_id = event.message_id,
            event_type = event.event,
            attempt = event.attempts + 1,
            status = status.as_u16(),
            "webhook event delivered"
        );
        Ok(())
    }

    async fn record_failure(&self, event: &WebhookEvent, failure: Failure) -> sqlx::Result<()> {
        let (now, attempt) = (self.clock.now(), event.attempts + 1);
        let (message_id, kind) = (&event.message_id, &event.event);
        let (receiver, error) = (&self.origin, &failure.what);
        let jitter = rand::random();
        let next = next_attempt(event.created_at, now, attempt, failure.retry_after, jitter);
        let mut tx = self.db.begin().await?;
        match next {
            Some(next) => repository::schedule_retry(&mut tx, event.id, error, next).await?,
            None => repository::give_up(&mut tx, event.id, error, now).await?,
        }
        tx.commit().await?;
        if let Some(next) = next {
            metrics::counter!(WEBHOOK_DELIVERIES, "outcome" => "failed").increment(1);
            let seconds = (next - now).num_seconds();
            tracing::warn!(
                event = "webhook.failed",
                message_id,
                event_type = kind,
                attempt,
                receiver,
                error,
                retry_after = seconds,
                "webhook delivery failed and is retried"
            );
        } else {
            metrics::counter!(WEBHOOK_DELIVERIES, "outcome" => "abandoned").increment(1);
            tracing::error!(
                event = "webhook.abandoned",
                message_id,
                event_type = kind,
                attempt,
                receiver,
                error,
                "webhook delivery failed for the last time"
            );
        }
        Ok(())
    }

    /// Deletes undeliverable events after their retention. Runs once per [`PRUNE_INTERVAL`].
    async fn prune(&mut self) -> sqlx::Result<()> {
        let now = self.clock.now();
        if now >= self.next_pruning {
            let mut tx = self.db.begin().await?;
            repository::prune(&mut tx, now - RETENTION).await?;
            tx.commit().await?;
            self.next_pruning = now + PRUNE_INTERVAL;
        }
        Ok(())
    }
}
