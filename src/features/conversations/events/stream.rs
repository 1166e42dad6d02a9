//! A stream of events. Nothing waits in memory: what happened is read when the client has taken
//! what happened before, so that a slow one falls behind in the database.

use super::WatchConversations;
use super::model::{End, Text};
use super::service;
use crate::core::error::{Error, Result};
use crate::live::{Seat, Watching};
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

/// Most streams of one key or user.
const MAX_STREAMS: usize = 20;
const TOO_MANY: &str = "At most 20 event streams may be open at a time";
/// How often a stream looks without being told to, in milliseconds: not all at the same time.
const LOOK_MILLISECONDS: std::ops::RangeInclusive<u64> = 4000..=6000;
/// The credential is asked about no more often, however much happens.
const CHECK: Duration = Duration::from_secs(1);
/// How long nothing is sent.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Tells nginx to pass on what comes as it comes.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    app: AppState,
    conversation_id: i64,
    access: Access,
    watching: Watching,
    /// The id of the last event that was sent.
    last: i64,
    begun: bool,
    /// Whether events are gone that the client has not seen.
    missed: bool,
    /// Whether there is something to read already.
    more: bool,
    look_at: Instant,
    check_at: Instant,
    beat_at: Instant,
    _seat: Seat,
}

/// What a stream does next.
enum Turn {
    Stop,
    Look,
    Beat,
}

impl Stream {
    /// Watches conversation `id` from the event after `last_seen` on, or from now on.
    pub async fn open(
        app: AppState,
        id: i64,
        access: Access,
        last_seen: Option<i64>,
    ) -> Result<Self> {
        // Before the database is asked, so that nothing happens unseen in between.
        let watching = app.live.watch(id);
        let beginning = service::begin(&app.db, id, access.reach(), last_seen).await?;
        let seat = app.live.seat(access.credential(), MAX_STREAMS);
        let seat = seat.ok_or(Error::TooManyOpen(TOO_MANY))?;
        let now = Instant::now();
        Ok(Self {
            app,
            conversation_id: id,
            access,
            watching,
            last: beginning.last,
            begun: false,
            missed: beginning.missed,
            more: true,
            look_at: now,
            check_at: now + CHECK,
            beat_at: now,
            _seat: seat,
        })
    }

    /// The answer that it is.
    pub fn answer(self) -> Response {
        let chunks = stream::unfold(Some(self), async |stream| {
            let mut stream = stream?;
            let (text, goes_on) = match stream.next().await {
                Ok(text) => (text, true),
                Err(end) => (Text::end(end), false),
            };
            let chunk = Ok::<_, Infallible>(Bytes::from(text.into_bytes()));
            Some((chunk, goes_on.then_some(stream)))
        });
        let fields = [
            (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (ACCEL_BUFFERING, HeaderValue::from_static("no")),
        ];
        (fields, Body::from_stream(chunks)).into_response()
    }

    /// What is sent next, or why nothing is any more.
    async fn next(&mut self) -> Result<Text, End> {
        let text = self.find().await?;
        // A connection that makes no progress is closed.
        let patience = self.app.config.limits.idle_timeout / 3;
        self.beat_at = Instant::now() + HEARTBEAT.min(patience);
        Ok(text)
    }

    async fn find(&mut self) -> Result<Text, End> {
        if !self.begun {
            self.begun = true;
            return Ok(Text::beginning(self.last, self.missed));
        }
        loop {
            match self.turn().await {
                Turn::Stop => return Err(End::Stopping),
                Turn::Beat => return Ok(Text::heartbeat()),
                Turn::Look => {}
            }
            let stopping = self.app.stopping.clone();
            // Boxed: of a thousand streams most wait, and those have none of it.
            let looking = Box::pin(self.look());
            match stopping.run_until_cancelled(looking).await.ok_or(End::Stopping)? {
                Ok(looked) => {
                    let text = looked?;
                    if !text.is_empty() {
                        return Ok(text);
                    }
                }
                Err(error) => {
                    self.more = false;
                    tracing::debug!(event = "live.look_failed", %error, "will be tried again");
                }
            }
        }
    }

    async fn turn(&mut self) -> Turn {
        if self.app.stopping.is_cancelled() {
            return Turn::Stop;
        }
        if self.more {
            return Turn::Look;
        }
        tokio::select! {
            biased;
            () = self.app.stopping.cancelled() => Turn::Stop,
            () = self.watching.news() => Turn::Look,
            () = sleep_until(self.look_at.min(self.beat_at)) => {
                if self.look_at <= self.beat_at { Turn::Look } else { Turn::Beat }
            }
        }
    }

    /// What happened since, or why it is not told any more.
    async fn look(&mut self) -> Result<Result<Text, End>> {
        let now = Instant::now();
        self.look_at = now + Duration::from_millis(rand::random_range(LOOK_MILLISECONDS));
        if self.check_at <= now {
            if !self.is_allowed().await? {
                return Ok(Err(End::Credential));
            }
            self.check_at = now + CHECK;
        }
        let reach = self.access.reach();
        let news = service::after(&self.app.db, self.conversation_id, reach, self.last).await?;
        let Some(news) = news else { return Ok(Err(End::Conversation)) };
        (self.last, self.more) = (news.last, news.more);
        Ok(Ok(news.text))
    }

    /// Whether the credential is still good, and good for this.
    async fn is_allowed(&self) -> Result<bool> {
        let app = &self.app;
        let known = Credentials { keys: &app.keys, db: &app.db, sessions: &app.config.sessions };
        let caller = credential::again(known, &self.access, app.clock.now()).await?;
        Ok(caller.is_some_and(|c| AllowedOrUser::<WatchConversations>::check(&c).is_ok()))
    }
}
