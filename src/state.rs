//! What every handler can reach.

use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::db::Db;
use crate::security::last_used::LastUsed;
use crate::security::password::Passwords;
use crate::security::throttle::Throttle;
use crate::webhooks::Webhooks;
use axum::extract::FromRef;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The server's parts. Cheap to clone; clones share everything.
#[derive(Clone, Debug, FromRef)]
pub struct AppState {
    /// The database.
    pub db: Db,
    /// The configuration.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Clock,
    /// Rate limits.
    pub throttle: Throttle,
    /// Uses of keys that are not written yet.
    pub last_used: LastUsed,
    /// Hashes and checks passwords.
    pub passwords: Passwords,
    /// Notices to another server.
    pub webhooks: Webhooks,
    /// Tasks that shutdown waits for.
    pub tasks: TaskTracker,
    /// Cancelled when the server is told to stop.
    pub stopping: CancellationToken,
    /// When the server started.
    pub started: Started,
}

/// When the server started.
#[derive(Clone, Copy, Debug)]
pub struct Started(pub DateTime<Utc>);

impl AppState {
    /// A server on `db` that starts now.
    pub fn new(db: Db, config: Config, clock: Clock) -> Self {
        Self {
            db,
            throttle: Throttle::new(&config.rate_limits),
            last_used: LastUsed::default(),
            passwords: Passwords::new(&config),
            webhooks: Webhooks::new(&config),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            started: Started(clock.now()),
            config: Arc::new(config),
            clock,
        }
    }
}
