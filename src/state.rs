//! What every handler can reach.

use crate::audit::{Audit, AuditKeyError, AuditKeys, Succession};
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::db::{self, Db, OpenError};
use crate::http::Budget;
use crate::live::Live;
use crate::security::keys::Keys;
use crate::security::password::Passwords;
use crate::security::session::SessionUses;
use crate::security::tally::Tally;
use crate::security::throttle::Throttle;
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

/// Changes of keys that wait for the database at a time; it makes them one by one.
const KEY_CHANGES: usize = 2;

/// The server's [`Parts`]. Cheap to clone, which happens several times a request; clones share
/// everything.
#[derive(Clone, Debug)]
pub struct AppState(Arc<Parts>);

/// What a server consists of.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub db: Db,
    /// The configuration.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Clock,
    /// Rate limits.
    pub throttle: Throttle,
    /// Memory for large requests and answers.
    pub memory: Budget,
    /// Finds keys by their secrets.
    pub keys: Keys,
    /// Turns at changing keys: those who wait for one keep no connection.
    pub key_changes: Arc<Semaphore>,
    /// Uses of keys that are not written yet.
    pub usage: Usage,
    /// Uses of sessions that are not written yet.
    pub session_uses: SessionUses,
    /// Refused credentials that are not in the audit log yet, by their reasons.
    pub failures: Tally<&'static str>,
    /// Sign-ins that are not in the audit log yet, by the ids of the users.
    pub sign_ins: Tally<i64>,
    /// Registrations without a key that are not in the audit log yet, by the ids of the users.
    pub registrations: Tally<i64>,
    /// Writes the audit trail.
    pub audit: Audit,
    /// Hashes and checks passwords.
    pub passwords: Passwords,
    /// Notices to another server.
    pub webhooks: Webhooks,
    /// Tells those who watch a conversation that something happened in it.
    pub live: Live,
    /// Tasks that shutdown waits for.
    pub tasks: TaskTracker,
    /// Cancelled when the server is told to stop.
    pub stopping: CancellationToken,
    /// When the server started.
    pub started: Started,
    /// The token of `/bootstrap` that was made for this start, where one was.
    pub bootstrap_token: OnceLock<SecretString>,
}

/// When the server started.
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
    /// There is no key for the audit trail.
    #[error(transparent)]
    AuditKey(#[from] AuditKeyError),
    /// The audit trail could not be read or written.
    #[error("cannot prepare the audit trail: {0}")]
    Audit(#[source] sqlx::Error),
    /// There are rows as only an older version leaves them, and no migration was under way.
    #[error(
        "no row of the audit trail is in the chain: an upgrade was cut off, or somebody has taken \
         their hashes away; look at them, and if they are right run `octopus migrate --adopt-trail`"
    )]
    NotAdopted,
    /// To go on with another key would break the chain.
    #[error(
        "the audit chain was made with a key that is neither AUDIT_KEY nor one of AUDIT_KEYS_OLD: \
         set them as the server has them"
    )]
    OtherAuditKey,
    /// A command must not change the key of the chain: a running server could not continue it.
    #[error(
        "the last audit entry was made with another key than AUDIT_KEY: set it as the server has \
         it; after a change of the key, start the server first"
    )]
    NotCurrentAuditKey,
    /// It may have leaked, which is why it was changed.
    #[error(
        "the audit log was changed from this AUDIT_KEY to another one, and an earlier key cannot \
         return: set the newest key, or make a new one and list the others in AUDIT_KEYS_OLD"
    )]
    RetiredAuditKey,
}

impl AppState {
    /// A server that starts now: opens the database that `config` names. Where `AUDIT_KEY` is
    /// another one than before, the audit log changes to it.
    pub async fn open(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::open_with(config, clock, true).await
    }

    /// The same for a command: refuses where the last audit entry was made with another key than
    /// `AUDIT_KEY`.
    pub async fn open_with_same_key(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::open_with(config, clock, false).await
    }

    async fn open_with(
        config: Config,
        clock: Clock,
        may_change_key: bool,
    ) -> Result<Self, StartError> {
        AuditKeys::require(&config)?;
        // The database first: it refuses what is not ours before anything is put beside it.
        let (db, was_older) = db::open_and_tell(&config.database_url, config.auto_migrate).await?;
        let audit = match trail(&db, &config, was_older, clock.now()).await {
            Ok(audit) if may_change_key => continued(audit, &db, clock.now()).await,
            Ok(audit) => with_same_key(audit, &db).await,
            Err(error) => Err(error),
        };
        match audit {
            Ok(audit) => Ok(Self::new(db, audit, config, clock)),
            Err(error) => Err(closed(&db, error).await),
        }
    }

    /// The same on the database of a server, perhaps a running one: makes, migrates and adopts
    /// nothing, and has the server's audit key or refuses.
    pub async fn open_existing(config: Config, clock: Clock) -> Result<Self, StartError> {
        let db = db::open_existing(&config.database_url).await?;
        match existing_trail(&db, &config).await {
            Ok(audit) => Ok(Self::new(db, audit, config, clock)),
            Err(error) => Err(closed(&db, error).await),
        }
    }

    fn new(db: Db, audit: Audit, config: Config, clock: Clock) -> Self {
        Self(Arc::new(Parts {
            keys: Keys::new(db.clone()),
            live: Live::new(&db),
            db,
            audit,
            throttle: Throttle::new(&config.rate_limits),
            memory: Budget::new(config.limits.memory_bytes),
            key_changes: Arc::new(Semaphore::new(KEY_CHANGES)),
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

/// The trail in `db`; one that `was_older` is taken over.
async fn trail(
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
            "AUDIT_KEY is set, so the audit key in this file is not read: if entries were made with \
             it, add it to AUDIT_KEYS_OLD"
        );
    }
    if was_older {
        audit.adopt(db, now).await.map_err(StartError::Audit)?;
    } else if audit.is_left_unadopted(db).await.map_err(StartError::Audit)? {
        return Err(StartError::NotAdopted);
    }
    // A lost key must not keep the service down; that it was lost shows here and in `verify`.
    if !audit.knows_the_last_key(db).await.map_err(StartError::Audit)? {
        tracing::error!(event = "audit.key_unknown", "{}", StartError::OtherAuditKey);
    }
    Ok(audit)
}

/// The trail in `db`, with the key that a server made it with.
async fn existing_trail(db: &Db, config: &Config) -> Result<Audit, StartError> {
    with_same_key(Audit::new(AuditKeys::load_existing(config)?), db).await
}

/// Fails where the last entry was made with another key.
async fn with_same_key(audit: Audit, db: &Db) -> Result<Audit, StartError> {
    let is_current = audit.has_current_key(db).await.map_err(StartError::Audit)?;
    if is_current { Ok(audit) } else { Err(StartError::NotCurrentAuditKey) }
}

/// The audit log with `AUDIT_KEY` as its key from here on.
async fn continued(audit: Audit, db: &Db, now: DateTime<Utc>) -> Result<Audit, StartError> {
    match audit.succeed(db, now).await.map_err(StartError::Audit)? {
        Succession::Current => {}
        Succession::Changed => tracing::warn!(
            event = "audit.key_changed",
            "the audit log continues with another AUDIT_KEY; earlier keys verify only the entries \
             before"
        ),
        Succession::Retired => return Err(StartError::RetiredAuditKey),
    }
    Ok(audit)
}

/// Closes the database, as who fails leaves nothing open behind.
async fn closed(db: &Db, error: StartError) -> StartError {
    db.close().await;
    error
}
