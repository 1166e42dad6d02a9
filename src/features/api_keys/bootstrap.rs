//! The first key: by `/bootstrap`, from `MASTER_API_KEY`, or by the command line.

use super::admission::BootstrapCall;
use super::model::{ApiKey, CreatedApiKey, NewApiKey};
use super::repository::{self, Stored};
use super::service::{insert, record};
use crate::audit::{Action, Origin, PerformedBy};
use crate::core::error::{Error, Result};
use crate::db::{Db, Tx};
use crate::security::{Scopes, secret};
use crate::state::AppState;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

/// What the first key is called.
const NAME: &str = "Master API Key";

const COMPLETED: &str =
    "Bootstrap already completed. Use an admin API key to create more API keys.";
const CLOSED: &str = "Bootstrap is closed: its time after the start of the server is over. Run \
                      `octopus bootstrap` on the server, or restart it and try again.";
/// What the token begins with that is made for a start. Not one of `key_format::PREFIXES`, which
/// the log leaves out: the log is where this one is read.
const TOKEN_PREFIX: &str = "octb_";

/// The first key, and what to do with it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BootstrapAnswer {
    #[schema(example = "Bootstrap successful. Store this API key now: it is never shown again.")]
    message: &'static str,
    #[schema(example = "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMQ")]
    api_key: String,
    #[schema(example = "Master API Key")]
    name: String,
    #[schema(example = "admin,read,write")]
    scopes: String,
    instructions: Instructions,
}

/// What to do next.
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
                three: "Create a key of its own for each person and program with POST /api/v1/api-keys.",
            },
        }
    }
}

/// Makes the token for public callers of `/bootstrap`, where none is configured and there is no key
/// yet.
pub async fn make_token(app: &AppState) -> Result<Option<&SecretString>> {
    if app.config.bootstrap_token.is_some() || repository::any_exists(&app.db).await? {
        return Ok(None);
    }
    let make = || secret::make_token(TOKEN_PREFIX, &mut rand::rng()).into();
    Ok(Some(app.bootstrap_token.get_or_init(make)))
}

/// Makes the first key for the first caller who is [admitted](BootstrapCall::admit). Exactly one
/// caller ever wins.
pub async fn by_call(app: &AppState, call: BootstrapCall<'_>) -> Result<CreatedApiKey> {
    let made = app.bootstrap_token.get();
    let has_token = call.admit(&app.config, made).inspect_err(|_| {
        if call.lacks_token(&app.config, made) {
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
    first_key(app, &Origin { by: PerformedBy::Anonymous, ip, request_id }, "request").await
}

/// Makes the first key for whoever has the server's command line.
pub async fn by_host(app: &AppState) -> Result<CreatedApiKey> {
    first_key(app, &Origin::HOST, "command line").await
}

/// What became of `MASTER_API_KEY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterKey {
    /// It is not set.
    Unset,
    /// It was registered just now.
    Registered,
    /// It is an active key.
    Known,
    /// It is set, but no active key: there were others already.
    Ignored,
}

/// Registers `MASTER_API_KEY`, if there is no key yet.
pub async fn by_configuration(app: &AppState) -> Result<MasterKey> {
    let Some(master) = &app.config.master_api_key else { return Ok(MasterKey::Unset) };
    let key = master.expose_secret();
    let hash = secret::hash(key);
    if repository::any_exists(&app.db).await? {
        return known(&app.db, hash).await;
    }
    let Some(mut tx) = begin_first(&app.db).await? else {
        // Another server that starts beside this one was faster, perhaps with the same key.
        return known(&app.db, hash).await;
    };
    let now = app.clock.now();
    let stored = Stored { hash, prefix: &secret::shown(key) };
    let created = repository::insert(&mut tx, stored, &properties(), None, now).await?;
    record_first(app, &mut tx, &Origin::SERVER, "configuration", &created, now).await?;
    tx.commit().await?;
    Ok(MasterKey::Registered)
}

async fn known(db: &Db, hash: secret::Hash) -> Result<MasterKey> {
    let active = repository::find_by_hash(db, hash).await?.is_some_and(|key| key.is_active);
    Ok(if active { MasterKey::Known } else { MasterKey::Ignored })
}

async fn first_key(app: &AppState, origin: &Origin, by: &str) -> Result<CreatedApiKey> {
    let mut tx = begin_first(&app.db).await?.ok_or(Error::Refused(COMPLETED.into()))?;
    let now = app.clock.now();
    let created = insert(&mut tx, &properties(), None, now).await?;
    record_first(app, &mut tx, origin, by, &created.api_key, now).await?;
    tx.commit().await?;
    Ok(created)
}

/// A transaction in which there is no key and nobody else can make one; `None` when there is one.
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
