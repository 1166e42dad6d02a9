//! The rate limit on the route that creates API keys: a [`tower_governor`] layer.

use super::limiter::refusal;
use super::refusal::refuse;
use crate::core::error::Error;
use crate::security::actor::Caller;
use axum::body::Body;
use axum::http::Request;
use axum::response::IntoResponse;
use governor::middleware::NoOpMiddleware;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tower_governor::governor::{GovernorConfig, GovernorConfigBuilder};
use tower_governor::key_extractor::KeyExtractor;
use tower_governor::{GovernorError, GovernorLayer};

const POLICY: &str = "key-creation";

/// A layer that limits requests per API key.
pub type KeyCreationLayer = GovernorLayer<ByKey, NoOpMiddleware, Body>;

/// Counts requests to create an API key by the key that sends them. The number of API keys bounds
/// its memory.
pub(super) struct KeyCreation {
    per_minute: NonZeroU32,
    config: Arc<GovernorConfig<ByKey, NoOpMiddleware>>,
}

impl KeyCreation {
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        let config = GovernorConfigBuilder::default()
            .period(Duration::from_mins(1) / per_minute.get())
            .burst_size(per_minute.get())
            .key_extractor(ByKey)
            .finish()
            .expect("the period and the burst size are not zero");
        Self { per_minute, config: Arc::new(config) }
    }

    pub(super) fn layer(&self) -> KeyCreationLayer {
        let per_minute = self.per_minute;
        GovernorLayer::new(self.config.clone()).error_handler(move |error| {
            let error = match error {
                GovernorError::TooManyRequests { wait_time, .. } => {
                    refuse(refusal(POLICY, per_minute, wait_time), None)
                }
                _ => Error::Internal("the route has no authentication layer".into()),
            };
            error.into_response()
        })
    }

    /// Removes keys whose quota is full again.
    pub(super) fn sweep(&self) {
        self.config.limiter().retain_recent();
        self.config.limiter().shrink_to_fit();
    }

    /// The policy name, and the number of keys in memory.
    pub(super) fn size(&self) -> (&'static str, usize) {
        (POLICY, self.config.limiter().len())
    }
}

/// Extracts the id of the caller's API key, to count requests per key.
#[derive(Clone, Debug)]
pub struct ByKey;

impl KeyExtractor for ByKey {
    type Key = i64;

    fn extract<T>(&self, request: &Request<T>) -> Result<i64, GovernorError> {
        match request.extensions().get::<Caller>() {
            Some(Caller::Key(actor)) => Ok(actor.key_id()),
            _ => Err(GovernorError::UnableToExtractKey),
        }
    }
}
