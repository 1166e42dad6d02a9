//! What every handler can reach.

use crate::audit::{Audit, AuditKeyError, AuditKeys};
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::db::{self, Db, OpenError};
use crate::security::failures::Failures;
use crate::security::keys::Keys;
use crate::security::password::Passwords;
use crate::security::throttle::Throttle;
use crate::security::usage::Usage;
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
    /// Finds keys by their secrets.
    pub keys: Keys,
    /// Uses of keys that are not written yet.
    pub usage: Usage,
    /// Refused credentials that are not in the audit trail yet.
    pub failures: Failures,
    /// Writes the audit trail.
    pub audit: Audit,
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

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no key for the audit trail.
    #[error(transparent)]
    AuditKey(#[from] AuditKeyError),
    /// The audit trail of an older version could not be taken over.
    #[error("cannot take earlier rows into the audit chain: {0}")]
    Adopt(#[source] sqlx::Error),
}

impl AppState {
    /// A server that starts now: opens the database that `config` names.
    pub async fn open(config: Config, clock: Clock) -> Result<Self, StartError> {
        // The database first: it refuses what is not ours before anything is put beside it.
        let db = db::open(&config.database_url, config.auto_migrate).await?;
        let audit = Audit::new(AuditKeys::load(&config)?);
        audit.adopt(&db, clock.now()).await.map_err(StartError::Adopt)?;
        Ok(Self::new(db, audit, config, clock))
    }

    fn new(db: Db, audit: Audit, config: Config, clock: Clock) -> Self {
        Self {
            keys: Keys::new(db.clone()),
            db,
            audit,
            throttle: Throttle::new(&config.rate_limits),
            usage: Usage::default(),
            failures: Failures::default(),
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
