//! The state of a server, which every handler shares.

use crate::audit::{Audit, AuditKeyError, AuditKeys, KeyChange};
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::db::{Db, DbOptions, OpenError, Opened};
use crate::http::Budget;
use crate::live::Live;
use crate::security::key_cache::KeyCache;
use crate::security::password::Passwords;
use crate::security::rate_limit::Throttle;
use crate::security::session_uses::SessionUses;
use crate::security::tally::Tally;
use crate::security::usage::Usage;
use crate::webhooks::Webhooks;
use axum::extract::FromRef;
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Key changes that may wait for the database concurrently. The database runs them one at a time.
const MAX_QUEUED_KEY_CHANGES: usize = 2;

/// A shared reference to the server's [`Parts`]. axum clones it several times per request; a clone
/// is cheap and shares everything.
#[derive(Clone, Debug)]
pub struct AppState(Arc<Parts>);

/// The components of a server.
#[derive(Debug)]
pub struct Parts {
    /// The connection pools of the database.
    pub db: Db,
    /// The configuration, read at startup.
    pub config: Arc<Config>,
    /// The source of the current time. Tests can move it forward.
    pub clock: Clock,
    /// The rate limiters.
    pub throttle: Throttle,
    /// The memory budget for large requests and responses (`MEMORY_BUDGET_BYTES`).
    pub memory: Budget,
    /// A cache that finds API keys by their secrets.
    pub keys: KeyCache,
    /// Permits for changing API keys. A request that waits for a permit holds no connection.
    pub key_changes: Arc<Semaphore>,
    /// Uses of API keys that are not yet written to the database.
    pub usage: Usage,
    /// Uses of sessions that are not yet written to the database.
    pub session_uses: SessionUses,
    /// Refused credentials that are not yet in the audit log, counted by reason.
    pub failures: Tally<&'static str>,
    /// Sign-ins that are not yet in the audit log, counted by user id.
    pub sign_ins: Tally<i64>,
    /// Registrations without an API key that are not yet in the audit log, counted by user id.
    pub registrations: Tally<i64>,
    /// Writes the audit log.
    pub audit: Audit,
    /// Hashes and verifies passwords.
    pub passwords: Passwords,
    /// Sends webhook events to `WEBHOOK_URL`.
    pub webhooks: Webhooks,
    /// Notifies the subscribers of a conversation of new events.
    pub live: Live,
    /// Background tasks that shutdown waits for.
    pub tasks: TaskTracker,
    /// Cancelled when shutdown begins.
    pub stopping: CancellationToken,
    /// The time at which the server started.
    pub started: Started,
    /// The token of `/bootstrap` that this process generated at startup, if any.
    pub bootstrap_token: OnceLock<SecretString>,
}

/// The time at which the server started.
#[derive(Clone, Copy, Debug)]
pub struct Started(pub DateTime<Utc>);

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<AppState> for Db {
    fn from_ref(app: &AppState) -> Self {
        app.db.clone()
    }
}

impl FromRef<AppState> for Arc<Config> {
    fn from_ref(app: &AppState) -> Self {
        app.config.clone()
    }
}

impl FromRef<AppState> for Clock {
    fn from_ref(app: &AppState) -> Self {
        app.clock.clone()
    }
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no key for the audit log.
    #[error(transparent)]
    AuditKey(#[from] AuditKeyError),
    /// The audit log could not be read or written.
    #[error("cannot read or write the audit log: {0}")]
    Audit(#[source] sqlx::Error),
    /// The audit entries have no hashes, as in an older version, and no migration is running.
    #[error(
        "the audit log has entries, but none is in the hash chain: an upgrade was interrupted, or \
         the hashes were removed; check the entries, and if they are correct, run \
         `octopus migrate --adopt-entries`"
    )]
    NotAdopted,
    /// The last audit entry was made with an unknown key. The server logs this and starts.
    #[error(
        "the last audit entry was made with a key that is neither AUDIT_KEY nor in AUDIT_KEYS_OLD: \
         set both variables to the values that the server uses"
    )]
    UnknownAuditKey,
    /// The last audit entry was made with another key than `AUDIT_KEY`. A command must not change
    /// the key, because a running server could no longer write audit entries.
    #[error(
        "the last audit entry was made with another key than AUDIT_KEY: set AUDIT_KEY to the \
         server's value; if you have just changed it, start the server first"
    )]
    AuditKeyMismatch,
    /// `AUDIT_KEY` was replaced by a newer key before. It may have leaked, so it must not be used
    /// again.
    #[error(
        "a newer key has replaced this AUDIT_KEY, and an earlier key cannot be used again: set \
         AUDIT_KEY to the newest key, or to a new one, and list the others in AUDIT_KEYS_OLD"
    )]
    SupersededAuditKey,
}

impl AppState {
    /// Opens the database of `config` for a server that starts now. If `AUDIT_KEY` has changed, the
    /// audit log continues with the new key.
    pub async fn open(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::open_with(config, clock, true).await
    }

    /// Opens the database of `config` for a command. Fails if the last audit entry was made with
    /// another key than `AUDIT_KEY`.
    pub async fn open_with_same_key(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::open_with(config, clock, false).await
    }

    async fn open_with(
        config: Config,
        clock: Clock,
        may_change_key: bool,
    ) -> Result<Self, StartError> {
        AuditKeys::require(&config)?;
        // Open the database first: this fails on a file that is not an Octopus database, before the
        // audit key file is created beside it.
        let options = DbOptions::new().create(true).migrate(config.auto_migrate);
        let Opened { db, was_older } = options.open(&config.database_url).await?;
        let audit = match open_audit_log(&db, &config, was_older, clock.now()).await {
            Ok(audit) if may_change_key => with_new_key(audit, &db, clock.now()).await,
            Ok(audit) => with_same_key(audit, &db).await,
            Err(error) => Err(error),
        };
        match audit {
            Ok(audit) => Ok(Self::new(db, audit, config, clock)),
            Err(error) => Err(close_after(&db, error).await),
        }
    }

    /// Opens the existing database of a server, which may be running. Creates, migrates and adopts
    /// nothing. Fails if `AUDIT_KEY` is not the server's key.
    pub async fn open_existing(config: Config, clock: Clock) -> Result<Self, StartError> {
        let db = DbOptions::new().open(&config.database_url).await?.db;
        match open_existing_audit_log(&db, &config).await {
            Ok(audit) => Ok(Self::new(db, audit, config, clock)),
            Err(error) => Err(close_after(&db, error).await),
        }
    }

    fn new(db: Db, audit: Audit, config: Config, clock: Clock) -> Self {
        Self(Arc::new(Parts {
            keys: KeyCache::new(db.clone()),
            live: Live::new(&db),
            db,
            audit,
            throttle: Throttle::new(&config.rate_limits),
            memory: Budget::new(config.limits.memory_bytes),
            key_changes: Arc::new(Semaphore::new(MAX_QUEUED_KEY_CHANGES)),
            usage: Usage::default(),
            session_uses: SessionUses::default(),
            failures: Tally::default(),
            sign_ins: Tally::default(),
            registrations: Tally::default(),
            passwords: Passwords::new(&config),
            webhooks: Webhooks::new(&config),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            started: Started(clock.now()),
            bootstrap_token: OnceLock::new(),
            config: Arc::new(config),
            clock,
        }))
    }
}

/// Opens the audit log in `db`. If `was_older`, the schema has just been migrated, and the existing
/// entries are added to the hash chain.
async fn open_audit_log(
    db: &Db,
    config: &Config,
    was_older: bool,
    now: DateTime<Utc>,
) -> Result<Audit, StartError> {
    let audit = Audit::new(AuditKeys::load(config)?);
    if let Some(file) = AuditKeys::ignored_file(config) {
        tracing::warn!(
            event = "audit.key_file_ignored",
            file = %file.display(),
            "AUDIT_KEY is set, so the audit key in this file is not read: if audit entries were \
             made with it, add it to AUDIT_KEYS_OLD"
        );
    }
    if was_older {
        audit.adopt(db, now).await.map_err(StartError::Audit)?;
    } else if audit.has_unchained_entries(db).await.map_err(StartError::Audit)? {
        return Err(StartError::NotAdopted);
    }
    // A lost key must not prevent the server from starting. The log and `verify` report it.
    if !audit.has_last_key(db).await.map_err(StartError::Audit)? {
        tracing::error!(event = "audit.key_unknown", "{}", StartError::UnknownAuditKey);
    }
    Ok(audit)
}

/// Opens the audit log in `db`. Fails if the last entry was made with another key.
async fn open_existing_audit_log(db: &Db, config: &Config) -> Result<Audit, StartError> {
    with_same_key(Audit::new(AuditKeys::load_existing(config)?), db).await
}

/// Returns `audit`. Fails if the last entry was made with another key than `AUDIT_KEY`.
async fn with_same_key(audit: Audit, db: &Db) -> Result<Audit, StartError> {
    let is_current = audit.has_current_key(db).await.map_err(StartError::Audit)?;
    if is_current { Ok(audit) } else { Err(StartError::AuditKeyMismatch) }
}

/// Changes the key of the audit log to `AUDIT_KEY` if it was another one.
async fn with_new_key(audit: Audit, db: &Db, now: DateTime<Utc>) -> Result<Audit, StartError> {
    match audit.change_key(db, now).await.map_err(StartError::Audit)? {
        KeyChange::Current => {}
        KeyChange::Changed => tracing::warn!(
            event = "audit.key_changed",
            "the audit log continues with a new AUDIT_KEY; earlier keys verify only earlier entries"
        ),
        KeyChange::Retired => return Err(StartError::SupersededAuditKey),
    }
    Ok(audit)
}

/// Closes the database after a failed start, and returns `error`.
async fn close_after(db: &Db, error: StartError) -> StartError {
    db.close().await;
    error
}
