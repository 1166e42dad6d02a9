//! An event stream. It does not buffer events in memory: it reads the next batch from the database
//! when the client has received the previous one. A slow client lags behind in the database.

use super::model::{EndReason, EventText};
use super::permissions::SubscribeToConversations;
use super::service;
use crate::core::error::{Error, Result};
use crate::live::{StreamSlot, Subscription};
use crate::security::authenticate::Credentials;
use crate::security::{Access, AllowedOrUser, credential};
use crate::state::AppState;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Maximum number of open streams of one API key or user.
const MAX_STREAMS: usize = 20;
const TOO_MANY_STREAMS: &str = "At most 20 event streams may be open at a time";
/// Interval at which a stream polls the database without a notification, in milliseconds. Random,
/// so that streams do not poll at the same time.
const POLL_MILLISECONDS: std::ops::RangeInclusive<u64> = 4000..=6000;
/// Minimum interval between checks of the credential.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum time without data before a heartbeat is sent.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Disables response buffering in nginx.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    app: AppState,
    conversation_id: i64,
    access: Access,
    subscription: Subscription,
    /// Id of the last event sent.
    last: i64,
    started: bool,
    /// Whether events that the client has not received were removed.
    missed: bool,
    /// Whether to read again without waiting.
    more: bool,
    poll_at: Instant,
    check_at: Instant,
    heartbeat_at: Instant,
    _slot: StreamSlot,
}

/// The next step of a stream.
enum Step {
    Stop,
    Poll,
    Heartbeat,
}

impl Stream {
    /// Subscribes to conversation `id`, starting after event `last_seen` or after the newest event.
    /// Fails with 404 if the conversation is not visible, and with 429 if no stream slot is free.
    pub async fn open(
        app: AppState,
        id: i64,
        access: Access,
        last_seen: Option<i64>,
    ) -> Result<Self> {
        // Subscribe before the first read, so that no change in between is missed.
        let subscription = app.live.subscribe(id);
        let beginning = service::begin(&app.db, id, access.visibility(), last_seen).await?;
        let slot = app.live.slot(access.credential(), MAX_STREAMS);
        let slot = slot.ok_or(Error::TooManyStreams(TOO_MANY_STREAMS))?;
        let now = Instant::now();
        Ok(Self {
            app,
            conversation_id: id,
            access,
            subscription,
            last: beginning.last,
            started: false,
            missed: beginning.missed,
            more: true,
            poll_at: now,
            check_at: now + CHECK_INTERVAL,
            heartbeat_at: now,
            _slot: slot,
        })
    }

    /// The HTTP response with this stream as its body.
    pub fn answer(self) -> Response {
        let chunks = stream::unfold(Some(self), async |stream| {
            let mut stream = stream?;
            let (text, is_open) = match stream.next().await {
                Ok(text) => (text, true),
                Err(end) => (EventText::end(end), false),
            };
            let chunk = Ok::<_, Infallible>(Bytes::from(text.into_bytes()));
            Some((chunk, is_open.then_some(stream)))
        });
        let fields = [
            (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (ACCEL_BUFFERING, HeaderValue::from_static("no")),
        ];
        (fields, Body::from_stream(chunks)).into_response()
    }

    /// Waits for the next text to send. Fails with the reason why the stream ends.
    async fn next(&mut self) -> Result<EventText, EndReason> {
        let text = self.find().await?;
        // The server closes idle connections, so heartbeats must be more frequent than that.
        let max_silence = self.app.config.limits.idle_timeout / 3;
        self.heartbeat_at = Instant::now() + HEARTBEAT.min(max_silence);
        Ok(text)
    }

    async fn find(&mut self) -> Result<EventText, EndReason> {
        if !self.started {
            self.started = true;
            return Ok(EventText::beginning(self.last, self.missed));
        }
        loop {
            match self.next_step().await {
                Step::Stop => return Err(EndReason::Stopping),
                Step::Heartbeat => return Ok(EventText::heartbeat()),
                Step::Poll => {}
            }
            let stopping = self.app.stopping.clone();
            // Boxed to keep the future of a waiting stream small: most streams are waiting.
            let polling = Box::pin(self.poll());
            match stopping.run_until_cancelled(polling).await.ok_or(EndReason::Stopping)? {
                Ok(polled) => {
                    let text = polled?;
                    if !text.is_empty() {
                        return Ok(text);
                    }
                }
                Err(error) => {
                    self.more = false;
                    tracing::debug!(event = "live.poll_failed", %error, "reading events failed");
                }
            }
        }
    }

    async fn next_step(&mut self) -> Step {
        if self.app.stopping.is_cancelled() {
            return Step::Stop;
        }
        if self.more {
            return Step::Poll;
        }
        tokio::select! {
            biased;
            () = self.app.stopping.cancelled() => Step::Stop,
            () = self.subscription.changed() => Step::Poll,
            () = sleep_until(self.poll_at.min(self.heartbeat_at)) => {
                if self.poll_at <= self.heartbeat_at { Step::Poll } else { Step::Heartbeat }
            }
        }
    }

    /// Reads the next batch of events, or returns the reason why the stream ends.
    async fn poll(&mut self) -> Result<Result<EventText, EndReason>> {
        let now = Instant::now();
        self.poll_at = now + Duration::from_millis(rand::random_range(POLL_MILLISECONDS));
        if self.check_at <= now {
            if !self.is_allowed().await? {
                return Ok(Err(EndReason::Credential));
            }
            self.check_at = now + CHECK_INTERVAL;
        }
        let visibility = self.access.visibility();
        let batch =
            service::after(&self.app.db, self.conversation_id, visibility, self.last).await?;
        let Some(batch) = batch else { return Ok(Err(EndReason::Conversation)) };
        (self.last, self.more) = (batch.last, batch.more);
        Ok(Ok(batch.text))
    }

    /// Returns whether the credential is still valid and has the permission.
    async fn is_allowed(&self) -> Result<bool> {
        let app = &self.app;
        let known = Credentials { keys: &app.keys, db: &app.db, sessions: &app.config.sessions };
        let caller = credential::reauthenticate(known, &self.access, app.clock.now()).await?;
        Ok(caller.is_some_and(|c| AllowedOrUser::<SubscribeToConversations>::check(&c).is_ok()))
    }
}
