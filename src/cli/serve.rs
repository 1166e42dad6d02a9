//! `octopus serve`: the server, until SIGTERM or Ctrl-C.

use super::CliError;
use crate::core::clock::Clock;
use crate::core::config::{Config, Problems};
use crate::core::telemetry::{self, LogError};
use crate::db::Lock;
use crate::features::api_keys::bootstrap::{self, MasterKey};
use crate::server::{self, ServerError};
use crate::state::AppState;
use secrecy::ExposeSecret;
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};

pub(super) async fn run(config: Config) -> Result<(), CliError> {
    let _log = telemetry::log_to_stderr(&config).map_err(|error| match error {
        LogError::Filter(_) => CliError::from(Problems(vec![error.to_string()])),
        LogError::Thread(_) => CliError::Other(error.to_string()),
    })?;
    for network in config.wide_proxies() {
        tracing::warn!(
            event = "config.trusted_proxies_wide",
            %network,
            "TRUSTED_PROXIES has {network}, which holds public addresses: clients there choose the \
             address that limits, address lists and the audit log see; name only your proxies"
        );
    }
    // Before the database, so that a second server on this port does not even touch it.
    let listener = server::listen(config.listen)
        .map_err(|error| CliError::Other(format!("cannot listen on {}: {error}", config.listen)))?;
    let address = listener.local_addr().map_err(ServerError::from)?;
    // Before the database, too: nothing may be migrated under a server that is at work.
    let lock = Lock::take(&config.database_url)?;
    if let Some(lock) = &lock {
        lock.clear_leftovers().map_err(|error| CliError::Other(error.to_string()))?;
    }
    let app = AppState::open(config, Clock::default()).await?;
    register_master_key(&app).await?;
    let kind = app.db.kind();
    tracing::info!(event = "server.listening", %address, database = kind, "listening on http://{address}");
    log_bootstrap_token(&app, address).await?;
    let served = server::run(listener, app, stop_signal()).await;
    drop(lock);
    Ok(served?)
}

async fn register_master_key(app: &AppState) -> Result<(), CliError> {
    let failed = |error| CliError::Other(format!("cannot register MASTER_API_KEY: {error}"));
    match bootstrap::by_configuration(app).await.map_err(failed)? {
        MasterKey::Unset | MasterKey::Known => {}
        MasterKey::Registered => {
            tracing::info!(event = "master_key.registered", "MASTER_API_KEY is the first key");
        }
        MasterKey::Ignored => tracing::warn!(
            event = "master_key.ignored",
            "MASTER_API_KEY is set, but there are other keys already and it is not an active one"
        ),
    }
    Ok(())
}

/// Logs the token that makes the first key from a public address, with the command to use it. It is
/// a secret, and the log is its way to the operator; it is worth nothing once there is a key.
async fn log_bootstrap_token(app: &AppState, address: SocketAddr) -> Result<(), CliError> {
    let failed = |error| CliError::Other(format!("cannot look for API keys: {error}"));
    let Some(token) = bootstrap::make_token(app).await.map_err(failed)? else { return Ok(()) };
    let token = token.expose_secret();
    let host = match address.ip() {
        ip if ip.is_unspecified() => format!("localhost:{}", address.port()),
        _ => address.to_string(),
    };
    tracing::warn!(
        event = "bootstrap.token",
        "there is no API key yet; to make the first one from a public address, send this token: curl \
         -X POST -H 'Octopus-Bootstrap-Token: {token}' http://{host}/bootstrap"
    );
    Ok(())
}

/// Comes back at the first SIGTERM or SIGINT.
async fn stop_signal() {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!(event = "server.no_signals", "cannot wait for signals");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
