//! The first key: by `/bootstrap`, from `MASTER_API_KEY`, or by the command line.

use super::model::{ApiKey, CreatedApiKey, NewApiKey};
use super::repository::{self, Stored};
use super::service::{insert, record};
use crate::audit::{Action, Origin, PerformedBy};
use crate::core::error::{Error, Result};
use crate::db::{Db, Tx};
use crate::http::RequestId;
use crate::security::{Scopes, secret};
use crate::state::AppState;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use std::net::IpAddr;
use utoipa::ToSchema;

/// What the first key is called.
const NAME: &str = "Master API Key";

const COMPLETED: &str =
    "Bootstrap already completed. Use an admin API key to create more API keys.";
const CLOSED: &str = "Bootstrap is closed: its time after the start of the server is over. Run \
                      `octopus bootstrap` on the server, or restart it and try again.";
const WRONG_TOKEN: &str =
    "Bootstrap needs the right token in the header field Octopus-Bootstrap-Token";
const CROSS_SITE: &str = "Bootstrap cannot be called from another web site";

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

/// What a call of `/bootstrap` shows of itself.
#[derive(Debug)]
pub struct BootstrapCall<'r> {
    /// `Octopus-Bootstrap-Token`.
    pub token: Option<&'r [u8]>,
    /// `Sec-Fetch-Site`, which browsers send and pages cannot forge.
    pub fetch_site: Option<&'r [u8]>,
    /// Where it comes from.
    pub ip: IpAddr,
    /// Its id.
    pub request_id: RequestId,
}

/// Makes the first key for whoever calls first. Exactly one caller ever wins.
pub async fn by_call(app: &AppState, call: BootstrapCall<'_>) -> Result<CreatedApiKey> {
    if let Some(expected) = &app.config.bootstrap_token
        && !call.token.is_some_and(|token| same_secret(token, expected))
    {
        app.failures.note(call.ip, "bootstrap_token_wrong");
        return Err(Error::Forbidden(WRONG_TOKEN.into()));
    }
    if call.fetch_site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return Err(Error::Forbidden(CROSS_SITE.into()));
    }
    if repository::any_exists(&app.db).await? {
        return Err(Error::Refused(COMPLETED.into()));
    }
    let now = app.clock.now();
    let running = (now - app.started.0).to_std().unwrap_or_default();
    let window = app.config.bootstrap_window.filter(|_| app.config.bootstrap_token.is_none());
    if window.is_some_and(|window| running > window) {
        return Err(Error::Forbidden(CLOSED.into()));
    }
    let (ip, request_id) = (Some(call.ip), Some(call.request_id));
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

/// Compares hashes, so that the time it takes tells nothing about the secret.
fn same_secret(shown: &[u8], expected: &SecretString) -> bool {
    let shown = std::str::from_utf8(shown).unwrap_or_default();
    secret::hash(shown) == secret::hash(expected.expose_secret())
}
