//! Creation of the first API key: with `/bootstrap`, from `MASTER_API_KEY`, or on the command line.

use super::admission::BootstrapRequest;
use super::model::{ApiKey, CreatedApiKey, NewApiKey};
use super::repository::{self, StoredSecret};
use super::service::{UncommittedKey, insert, record};
use crate::audit::{Action, Origin, PerformedBy};
use crate::core::config::{Weakness, weakness};
use crate::core::error::{Error, Result};
use crate::db::{Db, Tx};
use crate::security::Scopes;
use crate::security::secret::{Secret, SecretHash, TokenKind, display_prefix};
use crate::state::AppState;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

/// Name of the first key.
const NAME: &str = "Master API Key";

const COMPLETED: &str =
    "Bootstrap already completed. Use an admin API key to create more API keys.";
const CLOSED: &str = "Bootstrap is closed: the time allowed after startup is over. Run \
                      `octopus bootstrap` on the server, or restart the server and try again.";

/// The first API key, with instructions.
#[derive(Debug, Serialize, ToSchema)]
pub struct BootstrapAnswer {
    #[schema(example = "Bootstrap successful. Store this API key now: it is never shown again.")]
    message: &'static str,
    #[schema(
        value_type = String,
        example = "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMQ"
    )]
    api_key: Secret,
    #[schema(example = "Master API Key")]
    name: String,
    #[schema(example = "admin,read,write")]
    scopes: String,
    instructions: Instructions,
}

/// Next steps.
#[derive(Debug, Serialize, ToSchema)]
struct Instructions {
    #[serde(rename = "1")]
    one: &'static str,
    #[serde(rename = "2")]
    two: &'static str,
    #[serde(rename = "3")]
    three: &'static str,
}

impl From<CreatedApiKey> for BootstrapAnswer {
    fn from(created: CreatedApiKey) -> Self {
        Self {
            message: "Bootstrap successful. Store this API key now: it is never shown again.",
            api_key: created.key,
            name: created.api_key.name,
            scopes: created.api_key.scopes,
            instructions: Instructions {
                one: "Save the key in a password manager or a secret store.",
                two: "Send it in the header field Octopus-API-Key.",
                three: "Create a separate key for each user and program with POST /api/v1/api-keys.",
            },
        }
    }
}

/// How callers of `/bootstrap` create the first key.
#[derive(Clone, Copy, Debug)]
pub enum FirstKey<'a> {
    /// They cannot: a key already exists.
    Exists,
    /// All of them send `BOOTSTRAP_TOKEN`.
    ConfiguredToken,
    /// Callers from public addresses send this token, which is valid until the server stops.
    GeneratedToken(&'a SecretString),
}

/// Prepares `/bootstrap` at the start of the server. Generates a token if none is configured and no
/// key exists.
pub async fn prepare(app: &AppState) -> Result<FirstKey<'_>> {
    if repository::any_exists(&app.db).await? {
        return Ok(FirstKey::Exists);
    }
    if app.config.bootstrap_token.is_some() {
        return Ok(FirstKey::ConfiguredToken);
    }
    let generate = || TokenKind::Bootstrap.generate(&mut rand::rng()).into();
    Ok(FirstKey::GeneratedToken(app.bootstrap_token.get_or_init(generate)))
}

/// Creates the first key for a caller of `/bootstrap`, if the request is allowed. Succeeds for
/// exactly one caller.
pub async fn from_request(app: &AppState, call: BootstrapRequest<'_>) -> Result<CreatedApiKey> {
    let generated = app.bootstrap_token.get();
    let has_token = call.admit(&app.config, generated).inspect_err(|_| {
        if call.has_wrong_token(&app.config, generated) {
            app.failures.note(call.client.ip, "bootstrap_token_wrong");
        }
    })?;
    if repository::any_exists(&app.db).await? {
        return Err(Error::Refused(COMPLETED.into()));
    }
    let now = app.clock.now();
    let running = (now - app.started.0).to_std().unwrap_or_default();
    let window = app.config.bootstrap_window.filter(|_| !has_token);
    if window.is_some_and(|window| running > window) {
        return Err(Error::Forbidden(CLOSED.into()));
    }
    let (ip, request_id) = (Some(call.client.ip), Some(call.request_id));
    let origin = Origin { by: PerformedBy::Anonymous, ip, request_id };
    first_key(app, &origin, "request").await?.commit(app).await
}

/// Creates the first key for an operator on the server's command line.
pub async fn from_command_line(app: &AppState) -> Result<CreatedApiKey> {
    prepare_from_command_line(app).await?.commit(app).await
}

/// Like [`from_command_line`], and leaves the commit to the caller, who can show the secret first.
pub async fn prepare_from_command_line(app: &AppState) -> Result<UncommittedKey> {
    first_key(app, &Origin::HOST, "command line").await
}

/// Result of registering `MASTER_API_KEY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterKey {
    /// The setting is not set.
    Unset,
    /// The key was registered.
    Registered,
    /// The key already exists and is active.
    Known,
    /// The key was not registered because other keys exist, and it is not an active key.
    Ignored,
    /// No key exists, and this one was not registered because it could be guessed.
    Weak(Weakness),
}

/// Registers `MASTER_API_KEY` if no key exists.
pub async fn from_master_key(app: &AppState) -> Result<MasterKey> {
    let Some(master) = &app.config.master_api_key else { return Ok(MasterKey::Unset) };
    let key = master.expose_secret();
    let hash = SecretHash::of(key);
    if repository::any_exists(&app.db).await? {
        return master_key_status(&app.db, hash).await;
    }
    if let Some(weakness) = weakness(key) {
        return Ok(MasterKey::Weak(weakness));
    }
    let Some(mut tx) = begin_first(&app.db).await? else {
        // Another server that is starting created the first key, perhaps the same one.
        return master_key_status(&app.db, hash).await;
    };
    let now = app.clock.now();
    let stored = StoredSecret { hash, prefix: &display_prefix(key) };
    let created = repository::insert(&mut tx, stored, &properties(), None, now).await?;
    record_first(app, &mut tx, &Origin::SERVER, "configuration", &created, now).await?;
    tx.commit().await?;
    Ok(MasterKey::Registered)
}

async fn master_key_status(db: &Db, hash: SecretHash) -> Result<MasterKey> {
    let active = repository::find_by_hash(db, hash).await?.is_some_and(|key| key.is_active);
    Ok(if active { MasterKey::Known } else { MasterKey::Ignored })
}

async fn first_key(app: &AppState, origin: &Origin, by: &str) -> Result<UncommittedKey> {
    let mut tx = begin_first(&app.db).await?.ok_or(Error::Refused(COMPLETED.into()))?;
    let now = app.clock.now();
    let created = insert(&mut tx, &properties(), None, now).await?;
    record_first(app, &mut tx, origin, by, &created.api_key, now).await?;
    Ok(UncommittedKey::new(created, tx, None, None))
}

/// Begins a transaction in which no key exists and no other transaction can create one. Returns
/// `None` if a key exists.
async fn begin_first(db: &Db) -> Result<Option<Tx>> {
    let mut tx = db.begin().await?;
    repository::lock_installation(&mut tx).await?;
    Ok(if repository::any_exists(&mut tx).await? { None } else { Some(tx) })
}

async fn record_first(
    app: &AppState,
    tx: &mut Tx,
    origin: &Origin,
    by: &str,
    key: &ApiKey,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let details = json!({ "name": key.name, "scopes": key.scopes, "by": by });
    record(app, tx, origin, Action::Bootstrap, key, &details, now).await
}

fn properties() -> NewApiKey {
    NewApiKey {
        name: NAME.to_owned(),
        description: Some("The first key of this installation".to_owned()),
        scopes: Scopes::ALL,
        expires_at: None,
        allowed_ips: None,
        rate_limit: None,
    }
}
