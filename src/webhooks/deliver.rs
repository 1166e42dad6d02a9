//! Delivers the notices that wait.

use super::Webhooks;
use super::backoff::next_attempt;
use super::outbox::{self, Notice};
use super::receiver::{Failure, Receiver};
use crate::core::clock::Clock;
use crate::core::metrics::WEBHOOK_DELIVERIES;
use crate::db::{Db, lease};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::StatusCode;
use std::sync::atomic::Ordering;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The lease of who delivers. While two do, a message may arrive twice: receivers have to expect
/// that anyway.
const NAME: &str = "webhooks";
/// How long the lease lasts: much longer than one attempt, before which it is renewed.
const LEASE: TimeDelta = TimeDelta::minutes(1);
/// How long notices that were given up are kept, for people to look at.
const KEEP: TimeDelta = TimeDelta::days(30);
/// How often older ones are removed.
const PRUNING: TimeDelta = TimeDelta::hours(1);

/// Why nothing could be delivered just now.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The outbox could not be read or written.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// There is no client to send with.
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// One process's part in delivering. Only the process with the lease has something to do.
pub struct Deliverer {
    webhooks: Webhooks,
    db: Db,
    clock: Clock,
    receiver: Receiver,
    origin: String,
    /// Who it is, to the others.
    holder: String,
    has_lease: bool,
    pruning: DateTime<Utc>,
}

impl Deliverer {
    /// `None` when nobody wants notices.
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
            pruning: clock.now(),
        }))
    }

    /// Sends every notice that is due, each once, in the order they were written, unless another
    /// process does. One that fails waits for its next attempt and holds up none behind it.
    pub async fn deliver_due(&mut self, stop: &CancellationToken) -> Result<(), DeliverError> {
        self.prune().await?;
        let (waiting, first) = outbox::waiting(&self.db).await?;
        self.webhooks.waiting.store(usize::try_from(waiting).unwrap_or(0), Ordering::Relaxed);
        if first.is_none_or(|first| first > self.clock.now()) {
            return Ok(());
        }
        let mut last = 0;
        while !stop.is_cancelled() && self.take_lease().await? {
            let now = self.clock.now();
            let Some(notice) = outbox::next_due(&self.db, now, last).await? else { break };
            // Only the wait for the other server is cut off: statements are not.
            let sent = stop.run_until_cancelled(self.receiver.send(&notice, now)).await;
            match sent {
                Some(Ok(status)) => self.arrived(&notice, status).await?,
                Some(Err(failure)) => self.failed(&notice, failure).await?,
                None => break,
            }
            last = notice.id;
        }
        Ok(())
    }

    /// Lets another process go on at once.
    pub async fn release(&mut self) -> Result<(), DeliverError> {
        if self.has_lease {
            let mut tx = self.db.begin().await?;
            lease::release(&mut tx, NAME, &self.holder).await?;
            tx.commit().await?;
            self.has_lease = false;
        }
        Ok(())
    }

    async fn take_lease(&mut self) -> sqlx::Result<bool> {
        let mut tx = self.db.begin().await?;
        let now = self.clock.now();
        self.has_lease = lease::take(&mut tx, NAME, &self.holder, now, now + LEASE).await?;
        tx.commit().await?;
        Ok(self.has_lease)
    }

    async fn arrived(&self, notice: &Notice, status: StatusCode) -> sqlx::Result<()> {
        let mut tx = self.db.begin().await?;
        outbox::delete(&mut tx, notice.id).await?;
        tx.commit().await?;
        metrics::counter!(WEBHOOK_DELIVERIES, "outcome" => "delivered").increment(1);
        tracing::info!(
            event = "webhook.delivered",
            message_id = notice.message_id,
            notice = notice.event,
            attempt = notice.attempts + 1,
            status = status.as_u16(),
            "a notice arrived"
        );
        Ok(())
    }

    async fn failed(&self, notice: &Notice, failure: Failure) -> sqlx::Result<()> {
        let (now, attempt) = (self.clock.now(), notice.attempts + 1);
        let (message_id, kind) = (&notice.message_id, &notice.event);
        let (receiver, error) = (&self.origin, &failure.what);
        let dice = rand::random();
        let next = next_attempt(notice.created_at, now, attempt, failure.retry_after, dice);
        let mut tx = self.db.begin().await?;
        match next {
            Some(next) => outbox::put_off(&mut tx, notice.id, error, next).await?,
            None => outbox::give_up(&mut tx, notice.id, error, now).await?,
        }
        tx.commit().await?;
        if let Some(next) = next {
            metrics::counter!(WEBHOOK_DELIVERIES, "outcome" => "failed").increment(1);
            let seconds = (next - now).num_seconds();
            tracing::warn!(
                event = "webhook.failed",
                message_id,
                notice = kind,
                attempt,
                receiver,
                error,
                retry_after = seconds,
                "a notice did not arrive and is sent again"
            );
        } else {
            metrics::counter!(WEBHOOK_DELIVERIES, "outcome" => "gave_up").increment(1);
            tracing::error!(
                event = "webhook.gave_up",
                message_id,
                notice = kind,
                attempt,
                receiver,
                error,
                "a notice never arrived and is not sent again"
            );
        }
        Ok(())
    }

    /// Removes what was given up long ago, now and then.
    async fn prune(&mut self) -> sqlx::Result<()> {
        let now = self.clock.now();
        if now >= self.pruning {
            let mut tx = self.db.begin().await?;
            outbox::prune(&mut tx, now - KEEP).await?;
            tx.commit().await?;
            self.pruning = now + PRUNING;
        }
        Ok(())
    }
}
